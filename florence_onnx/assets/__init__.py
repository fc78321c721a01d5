"""The files beside the graphs, read and written."""
