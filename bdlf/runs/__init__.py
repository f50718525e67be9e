"""The run folder: what identifies a run, what the run writes down, and its copy in Weights & Biases."""
