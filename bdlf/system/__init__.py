"""Everything that depends on the machine: files, locks, memory, processes, the terminal. Also the kinds of errors."""
