"""Known answers and published references beside the numbers that perimetry finds.

`check` is one comparison, `page` makes all of them and renders them as Markdown, the other files
are the groups of references. `python tests/write_validation.py` writes docs/validation.md.
"""
