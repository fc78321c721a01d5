"""Modules of Florence-2 in PyTorch, written for the graph engine and not for training."""
