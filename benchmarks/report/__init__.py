"""The pages and tables that are made of benchmarks/results."""
