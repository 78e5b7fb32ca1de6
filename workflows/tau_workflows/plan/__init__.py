"""What a run would do, what an earlier run has done, and what it will cost."""
