"""The `perturbation` suite: `suite` is its definition; then one file for each test."""
