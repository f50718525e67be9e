"""What makes two runs the same experiment: the hash of everything that changes the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from bdlf.config import Config, active_weights, terms_in
from bdlf.errors import InputError

_ELSEWHERE = (
    "seed",
    "label",
    "variant",
    "output",
    "sweep",
    "dry_run",
    "rerun",
    "debug",
    "devices",
    "threads",
    "tracker",
    "data",
)


def canonical(config: Config) -> dict[str, Any]:
    """The configuration less seed, names, paths and hardware, and less what is switched off.

    Two configurations that build and train the same thing are equal here, however they were written.
    """
    tree = dataclasses.asdict(config)
    for key in _ELSEWHERE:
        del tree[key]
    del tree["dataset"]["root"], tree["evaluation"]["batch"]
    if config.dataset.name != "synthetic":
        del tree["dataset"]["synthetic"], tree["dataset"]["seed"]
    if config.dataset.name != "regdb":
        del tree["dataset"]["split"]

    weights = active_weights(config.loss, config.dfe)
    terms = terms_in(config.loss)
    tree["loss"] = {"ramp": config.loss.ramp}
    for name, weight in weights.items():
        tree["loss"][name] = {**_options(terms[name]), "weight": weight}
    if not needs_detail(weights):
        tree["dfe"] = None
    elif not config.dfe.enabled:
        tree["dfe"] = {"enabled": False, "stage": config.dfe.stage, "norm": config.dfe.norm}
    return tree


def needs_detail(weights: dict[str, float]) -> bool:
    """Whether any term that is on reads Z^D or classifies with CLS_D."""
    return any(name in weights for name in ("id_detail", "odkl", "fkl", "dkl", "dcorr", "skd"))


def _options(term: Any) -> dict[str, Any]:
    options = dataclasses.asdict(term)
    del options["enabled"]
    return options


def run_hash(config: Config) -> str:
    """Eight hexadecimal digits of the SHA-256 of the canonical configuration."""
    return hashlib.sha256(json.dumps(canonical(config), sort_keys=True).encode()).hexdigest()[:8]


def run_label(config: Config) -> str:
    """`label`, or the variant with the stage and the number of blocks where they are not the paper's 3 and 6."""
    label = config.label or config.variant
    if config.label is None:
        label += f"-stage{config.dfe.stage}" if config.dfe.stage != 3 else ""
        label += f"-blocks{config.dfe.blocks}" if config.dfe.blocks != 6 else ""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", label):
        raise InputError(f"label='{label}' has characters other than A-Z a-z 0-9 . _ -; choose another label=")
    return label


def run_id(config: Config) -> str:
    """`<hash8>-seed<k>`; also the W&B id."""
    return f"{run_hash(config)}-seed{config.seed}"


def run_path(config: Config) -> Path:
    """`<output>/<dataset>/<label>-<hash8>/seed<k>`; a folder of the same hash under another label is the same run."""
    parent = Path(config.output) / config.dataset.name
    digest = run_hash(config)
    same = sorted(parent.glob(f"*-{digest}/seed{config.seed}"))
    return same[0] if same else parent / f"{run_label(config)}-{digest}" / f"seed{config.seed}"
