"""Synthesis of tau PET from T1w MRI: the only room that knows MONAI and trains with torch."""
