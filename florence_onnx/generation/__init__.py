"""Search for an answer, in numpy alone."""
