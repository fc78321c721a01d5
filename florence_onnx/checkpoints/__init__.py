"""Checkpoints, read without torch."""
