"""What makes two runs the same experiment: the hash of everything that changes the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from bdlf.config import Config, active_weights, needs_detail
from bdlf.errors import InputError
from bdlf.runs.selection import LAST, VALIDATION, selection_rules

_ELSEWHERE = (
    "seed",
    "label",
    "variant",
    "output",
    "sweep",
    "dry_run",
    "rerun",
    "debug",
    "compile",
    "devices",
    "threads",
    "tracker",
    "checkpoint",
    "data",
)
_DEFAULTS = dataclasses.asdict(Config())


def canonical(config: Config) -> dict[str, Any]:
    """What a run's result depends on: the configuration less seed, names, paths, hardware and what is switched off.

    Values that the schema gives anyway are left out, so that a key added later, with a default that changes nothing,
    changes no hash. Raises InputError where `backbone.weights` names a file that cannot be read.
    """
    tree = _difference(dataclasses.asdict(config), _DEFAULTS)
    for key in _ELSEWHERE:
        tree.pop(key, None)
    rules = [rule for rule in selection_rules(config.selection) if rule != LAST]
    tree["selection"] = rules or {}
    draws_holdout = VALIDATION in rules and config.dataset.name != "sysu"  # which has identities of its own for it
    unused = {
        "dataset": ["root", "follow_links"],
        "dfe": ["recompute"],
        "evaluation": [
            "batch",
            *([] if rules and config.evaluation.every != 1 else ["every"]),  # a rule scores every epoch anyway
            *([] if draws_holdout else ["holdout"]),
        ],
    }
    for part, keys in unused.items():
        for key in keys:
            tree.get(part, {}).pop(key, None)
    if config.dataset.name != "synthetic":
        tree["dataset"].pop("synthetic", None)
        if not draws_holdout:
            tree["dataset"].pop("seed", None)
    if config.dataset.name != "regdb":
        tree["dataset"].pop("split", None)
    if config.backbone.weights not in ("imagenet", "none"):
        tree["backbone"]["weights"] = _content(Path(config.backbone.weights))
    if not config.ema.enabled:
        tree["ema"] = {"enabled": False}

    weights = active_weights(config.loss, config.dfe)
    terms = tree.pop("loss", {})
    tree["loss"] = {name: {**terms.get(name, {}), "weight": weight} for name, weight in weights.items()}
    for options in tree["loss"].values():
        options.pop("enabled", None)
    if "ramp" in terms:
        tree["loss"]["ramp"] = terms["ramp"]
    if not needs_detail(weights):
        tree["dfe"] = None
    elif not config.dfe.enabled:
        tree["dfe"] = {key: value for key, value in tree["dfe"].items() if key in ("enabled", "stage", "norm")}
    return {key: value for key, value in tree.items() if value != {}}


def _difference(tree: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found[key] = _difference(value, defaults[key])
        elif value != defaults[key]:
            found[key] = value
    return found


def _content(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise InputError(f"backbone.weights={path} is not a file; give a file of weights")
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"backbone.weights={path} cannot be read ({error.strerror}); give a file of weights"
        ) from error


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
