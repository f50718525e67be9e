"""Training: the loop and its steps, the schedule, the average of the weights, checkpoints, the scoring of epochs."""
