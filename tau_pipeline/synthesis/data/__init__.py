"""From the derivatives of paired scans to the tensors that a network sees."""
