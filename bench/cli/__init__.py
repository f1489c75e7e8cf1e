"""The command line: `start` begins, `main` registers the commands, which share `options`."""
