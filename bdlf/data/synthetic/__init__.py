"""The synthetic dataset: the factors of every image, the drawing of people, and files in the datasets' layouts."""
