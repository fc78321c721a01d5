"""The JSON lines of an annotation as the files that other tools read."""
