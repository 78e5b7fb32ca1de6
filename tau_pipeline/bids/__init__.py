"""Inputs: the participants, images, and metadata of a raw BIDS dataset."""
