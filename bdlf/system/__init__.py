"""What the package asks of the machine: files, locks, memory, threads, the terminal; and its errors."""
