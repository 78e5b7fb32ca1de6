"""A trained model: its folder and card, its predictions, and their calibration."""
