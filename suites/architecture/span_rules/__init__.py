"""How receptive fields pass each kind of function, one kind per file; see `spans`."""
