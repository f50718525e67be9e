"""What all commands share: reading the command line, one-line errors, the jobs of a sweep, signals, exit codes."""
