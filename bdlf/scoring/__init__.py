"""Scores of what is trained: a run asked for other scores, given features, the splits of RegDB together."""
