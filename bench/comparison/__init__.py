"""Two models, measured side by side.

Read `compare`, then `sources` (where records come from), `compatibility`, `fingerprint` (sketches
of features and outputs), `divergence` (where two networks diverge), `result`, and how it is shown:
`verdict`, `text`, `maps`, `html`.
"""
