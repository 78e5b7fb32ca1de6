"""The training loop, and what it starts from, writes, and resumes from."""
