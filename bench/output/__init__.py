"""Text, numbers and files, as everything above writes them."""
