"""Graphs made from the modules: traced, compared with the reference, validated."""
