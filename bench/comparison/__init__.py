"""Two models, measured side by side.

Read `compare`, then `sources` (where records come from), `compatibility`, `fingerprint` (where two
networks diverge), `result`, and how it is shown: `verdict`, `text`, `maps`, `html`.
"""
