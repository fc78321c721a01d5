"""Training of a Florence-2: from scratch on drawn scenes, or fine-tuning on examples."""
