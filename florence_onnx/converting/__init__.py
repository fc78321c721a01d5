"""Conversion of the JSON lines of an annotation to the files of other tools."""
