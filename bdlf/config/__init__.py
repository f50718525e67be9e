"""The schema of the whole configuration, what its values may be, and where its YAML files are found.

Whoever imports this package can compose: the import makes the schemas, the sweeps and the package `bdlf.conf` known to
Hydra. Nothing here imports torch: `--help` and a typo answer at once.
"""

from __future__ import annotations

from bdlf.config.commands import (
    BenchmarkConfig,
    CheckConfig,
    EvaluateConfig,
    ProbeConfig,
    Source,
    SynthesizeConfig,
    VisualizeConfig,
)
from bdlf.config.places import config_folder, register, schema_tree
from bdlf.config.schema import Checkpoint, Config, Dataset, Loss, Optimizer, Schedule, Term, terms_in

__all__ = [
    "BenchmarkConfig",
    "CheckConfig",
    "Checkpoint",
    "Config",
    "Dataset",
    "EvaluateConfig",
    "Loss",
    "Optimizer",
    "ProbeConfig",
    "Schedule",
    "Source",
    "SynthesizeConfig",
    "Term",
    "VisualizeConfig",
    "config_folder",
    "register",
    "schema_tree",
    "terms_in",
]

register()
