"""How receptive fields pass each kind of function, one kind a file; see `spans`."""
