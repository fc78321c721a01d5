"""Graphs of lower precision, and how far they are from float32."""
