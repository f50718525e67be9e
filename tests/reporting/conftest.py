"""Run folders without a run: a configuration, a result and per-query figures that fit each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from bdlf.active import LOSS_GROUPS
from bdlf.config import Config
from bdlf.reporting.families import VARIANTS
from bdlf.runs.identity import run_id, run_path, with_facts
from bdlf.runs.record import SCHEMA
from bdlf.system.files import write_atomically, write_json, write_text

QUERIES = 40
PIDS = np.repeat(np.arange(10), 4)
"""Identities of the queries."""
_TEXTS: dict[str, str] = {}  # OmegaConf takes long, and most tests want the same few configurations


def configured(variant: str = "full", **changes) -> Config:
    """The configuration of a row of Table 2; `changes` by dotted key with `__` for the dot."""
    config = Config(variant=variant)
    config.dataset.name = "synthetic"
    switches = next(key for key, name in VARIANTS.items() if name == variant)
    config.dfe.enabled, config.loss.app.enabled, config.loss.orth.enabled, config.loss.skd.enabled = switches
    config.loss.detail.enabled = None  # as in conf/
    for members in LOSS_GROUPS.values():
        for name in members:
            getattr(config.loss, name).enabled = None  # as its group, as in conf/
    for key, value in changes.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = getattr(node, part)
        setattr(node, last, value)
    return config


@pytest.fixture
def fabricate(tmp_path):
    """`fabricate(config, quality)`: a finished run folder; every query is found first with probability `quality`."""

    def make(
        config: Config,
        quality: float = 0.5,
        *,
        rows: tuple[dict, ...] = ({},),
        finished: bool = True,
        dataset: str | None = None,
    ) -> Path:
        config = with_facts(config)
        config.output = "outputs"
        if repr(config) not in _TEXTS:
            _TEXTS[repr(config)] = OmegaConf.to_yaml(OmegaConf.structured(config))
        text = _TEXTS[repr(config)]
        config.output = str(tmp_path / "outputs")
        path = run_path(config)
        write_text(path / "config.yaml", text)
        write_text(path / "metrics.csv", "epoch,total\n0,1.0\n")
        if not finished:
            return path
        random = np.random.default_rng([config.seed, int(1000 * quality)])
        arrays, metrics = {}, []
        for index, changes in enumerate(rows):
            first = np.where(random.random((1, QUERIES)) < quality, 1, random.integers(2, 30, (1, QUERIES)))
            figures = {f"rank{rank}": 100 * float((first <= rank).mean()) for rank in (1, 5, 10, 20)}
            arrays |= {f"{index}.first_match": first, f"{index}.ap": 1 / first, f"{index}.inp": 1 / first}
            arrays[f"{index}.pids"] = PIDS
            figures |= {"mAP": 100 * float((1 / first).mean()), "mINP": 100 * float((1 / first).mean())}
            metrics.append(
                {
                    "dataset": dataset or config.dataset.name,
                    "split": config.dataset.split if config.dataset.name == "regdb" else None,
                    "mode": "all",
                    "shots": None,
                    "direction": "ir_to_vis",
                    "gallery": "all",
                    "reading": None,
                    "similarity": "cosine",
                    "feature": "after_bn",
                    "flip": True,
                    "model": "ema",
                    "epoch": 10,
                    "selection": "last_epoch",
                    "queries": QUERIES,
                    "valid_queries": QUERIES,
                    "mean": figures,
                    "std": None,
                    "trials": [figures],
                    **changes,
                }
            )
        write_atomically(path / "per_query.npz", lambda file: np.savez(file, **arrays))
        costs = {"train_seconds": 100.0, "images_per_second": 200.0, "peak_memory_gib": 1.5, "parameters": 7_000_000}
        facts = {"schema": SCHEMA, "run_id": run_id(config), "label": path.parent.name.rpartition("-")[0]}
        facts |= {"fingerprint": "f" * 64, "test_fingerprint": "e" * 64, "metrics": metrics}
        facts |= {"commit": "c" * 40, "dirty": False, "versions": {"torch": "2.14.1", "numpy": "2.4.6"}}
        facts |= {"trained_identities": {"sysu": 395, "regdb": 206, "llcm": 713}.get(config.dataset.name, 96)}
        write_json(path / "result.json", {**facts, **costs, "train_gflops": 0.3, "inference_gflops": 0.1})
        return path

    return make


@pytest.fixture(name="configured")
def _configured():
    return configured


@pytest.fixture
def table2(fabricate, configured):
    """Seven rows, two seeds; row i finds more the later it stands."""
    return {
        (name, seed): fabricate(configured(name, seed=seed), 0.3 + 0.08 * place)
        for place, name in enumerate(VARIANTS.values())
        for seed in (0, 1)
    }


def changed(folder: Path, **values) -> None:
    """Rewrite keys of a result, and `row__<key>` of its first row; None deletes."""
    result = json.loads((folder / "result.json").read_text())
    for name, value in values.items():
        node = result["metrics"][0] if name.startswith("row__") else result
        key = name.removeprefix("row__")
        if value is None:
            del node[key]
        else:
            node[key] = value
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture(name="changed")
def _changed():
    return changed
