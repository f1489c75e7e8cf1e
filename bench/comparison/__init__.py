"""Models, measured side by side.

Read `compare`, then `sides`, `arguments` and `sources` (where records come from), `names`,
`compatibility`, `fingerprint` (sketches of features and outputs), `divergence` (where two networks
diverge), `nodes` (where they part node by node), `result`, and how it is shown: `matrix` (all
models in one table), `decision` (what it decides, in sentences), `verdict` (of one pair),
`node_report`, `text`, `maps`, `html`.
"""
