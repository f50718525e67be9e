"""The steps of `bdlf.train`: finding the run of a configuration, describing it in a dry run, training it."""
