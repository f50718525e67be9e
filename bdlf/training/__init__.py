"""Training: loop, schedule, averaged model, checkpoint."""
