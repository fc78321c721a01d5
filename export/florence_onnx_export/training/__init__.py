"""Training of a Florence-2, from scratch on drawn scenes or on examples of one's own."""
