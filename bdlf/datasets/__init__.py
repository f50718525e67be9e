"""The datasets: one file for each, with all that is special about it, and the readers that they share."""
