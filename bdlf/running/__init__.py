"""The steps of `bdlf.train`: which run a configuration is, what a dry run says, and training it in its folder."""
