"""From a picture to pixel_values: the only importer of Pillow, drawing aside."""
