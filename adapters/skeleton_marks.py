"""What skeletons and `structure` tell each other of weights, by attributes of the tensors.

A skeleton has weights on `meta`, and these attributes say what is known of their values:
`fixed` (True: no random weights but the values), `stored` (the values, of scales that stand for
ones), `doubt` (what is assumed of a stored matrix, in words), `tap_energy` (the second moments,
(rows, columns), of a padded kernel) and the two below.
"""

KERNEL_DOUBT = "kernel_doubt"
"""What is assumed of a kernel, in words, for a note where it is read."""

SECOND_MOMENTS = "second_moments"
"""The second moments of the entries of weights that a network computes; absent if all are alike."""
