"""Assets: the files beside the graphs, reading and writing."""
