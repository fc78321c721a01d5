"""Pages and tables made from benchmarks/results."""
