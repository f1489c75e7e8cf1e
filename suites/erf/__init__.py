"""The `erf` suite: `suite` is its definition; then `protocols`, `metrics`, `gaussian`, `blocks`."""
