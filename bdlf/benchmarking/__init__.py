"""The measurements of `python -m bdlf.benchmark`: the suite of the training step, and the smaller suites."""
