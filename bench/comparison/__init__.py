"""Models, measured side by side.

Read `compare`, then `sides`, `sources` and `audited` (where records come from), `compatibility`,
`fingerprint` (sketches of features and outputs), `divergence` (where two networks diverge),
`alignment` and `nodes` (where they part node by node), `result`, `look` (opens models again), and
how it is shown: `matrix` (all models in one table), `decision` (what it decides, in sentences),
`verdict` (of one pair), `node_report`, `text`, `data`, `html`.
"""
