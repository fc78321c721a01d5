"""Adapters from the interfaces of other front ends to the service's own requests, and back."""
