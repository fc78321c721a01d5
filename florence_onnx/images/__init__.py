"""Pictures turned into pixel_values: the only importer of Pillow, drawing aside."""
