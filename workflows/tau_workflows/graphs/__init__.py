"""The Nipype graphs."""
