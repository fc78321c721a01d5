"""Checks and measurements on a GPU, by one command."""
