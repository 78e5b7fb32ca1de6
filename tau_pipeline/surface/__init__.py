"""Surfaces of the cortex, its thickness, and values on it; the only package that uses cat-surf, which is optional."""
