"""What `python -m bdlf.benchmark` measures, a module for each suite."""
