"""Records, their store, the runner, the leaderboard and the command line.

Read the chapters in the order given in tests/test_layers.py. The package `perimetry` exports the
public functions.
"""
