"""Graphs of the modules: tracing, comparison with the reference, validation."""
