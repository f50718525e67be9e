"""What every command shares: options, one-line errors, the jobs of a sweep, signals, exit codes."""
