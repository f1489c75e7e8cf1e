"""The `erf` suite: `suite` is its definition; then `metrics`, `gaussian`, `blocks`."""
