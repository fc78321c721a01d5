"""Graphs of lower precision, and the measurement of their errors."""
