"""Partial volume correction: regional means and maps without the blur of the scanner."""
