"""Conversion of pictures to pixel_values: the only importer of Pillow but drawing."""
