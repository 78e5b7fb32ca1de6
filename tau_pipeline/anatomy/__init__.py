"""One T1w: brain mask, bias correction, template, tissue, and parcellation."""
