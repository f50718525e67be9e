"""The drawn set: the factors of every image, how a person is drawn from them, and trees in the datasets' layouts."""
