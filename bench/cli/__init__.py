"""The command line. `main` registers the commands; `options` holds what they share."""
