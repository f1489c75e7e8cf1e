"""The `training` suite: `suite` is its definition, `summary` makes the metrics.

Then `tasks`, `micro_object` and `data`; `idx` reads one format of files.
"""
