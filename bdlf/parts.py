"""What a run is made of, before it has a folder or an image."""

from __future__ import annotations

import pandas as pd

from bdlf import build
from bdlf.config import Config


class Parts:
    """What a run is made of, less its images: whatever is wrong with the options raises InputError here."""

    def __init__(self, config: Config, listing: pd.DataFrame, *, resumed: bool) -> None:
        build.check_values(config)
        self.resumed = resumed
        self.fabric = build.build_fabric(config)
        self.table = build.build_partition(config, listing)
        self.settings = {
            "test": build.build_settings(config, self.table),
            "val": build.build_validation_settings(config, self.table),
        }
        self.sampler = build.build_sampler(config, self.table)
        self.objective = build.build_objective(config)
        identities = len(self.sampler.pids)
        self.network = build.build_model(config, identities, self.objective, weights="none" if resumed else None)
        self.recipe = build.build_recipe(config)
        self.augmentation = build.build_augmentation(config)
        self.images = config.schedule.epochs * self.sampler.steps_per_epoch * self.sampler.batch_size
        self.parameters = sum(parameter.numel() for parameter in self.network.parameters())
