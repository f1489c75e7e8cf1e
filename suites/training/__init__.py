"""The `training` suite: `suite` is its definition; then `tasks`, `micro_object` and `data`."""
