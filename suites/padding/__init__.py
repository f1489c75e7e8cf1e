"""The `padding` suite: `suite` is its definition; then one file for each question it asks."""
