"""The search for an answer, in numpy alone."""
