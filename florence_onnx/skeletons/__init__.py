"""Skeletons: graphs without weights for the released geometries, and their filling."""
