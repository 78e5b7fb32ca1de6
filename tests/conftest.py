"""What holds for every test: one thread, with which registrations repeat to the last bit, and no network."""

from __future__ import annotations

import os

# ANTs reads its number of threads when it is first used, so this stands before every import of the tests.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ET", "1")
os.environ.setdefault("NIPYPE_NO_ET", "1")
