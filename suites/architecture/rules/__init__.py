"""How expected energies pass each kind of operation, one kind a file."""
