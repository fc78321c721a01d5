"""Florence-2 in PyTorch, written for the graph engine rather than for training."""
