"""Graphs without weights for the released geometries, and how a checkpoint fills them."""
