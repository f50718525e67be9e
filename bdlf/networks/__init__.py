"""What the networks of all methods share: backbone, heads, initial weights by name, weights from files, costs."""
