"""Annotation: answers to several tasks on many pictures, in a file of JSON lines."""
