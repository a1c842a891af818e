"""Parameters of operations: which there are, what they may be."""
