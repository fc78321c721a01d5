"""Drawn scenes with exact answers to every task: numpy and Pillow only."""
