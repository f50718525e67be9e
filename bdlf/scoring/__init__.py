"""Scoring without training: a run in another way than before, features from a file, the splits of RegDB together."""
