"""What is reported of a synthetic scan, and the files that are written for it."""
