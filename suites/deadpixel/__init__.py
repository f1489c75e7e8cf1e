"""The `deadpixel` suite: `suite` is its definition, `dead_pixels` counts single pixels."""
