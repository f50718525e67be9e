"""`evaluate run=FOLDER`: scores a run's weights again, in another way or at another epoch."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch

from bdlf.assembly import check_options
from bdlf.config import Config, EvaluateConfig
from bdlf.evaluation.features_file import write_features
from bdlf.experiment import Experiment, open_run
from bdlf.runs.folder import RunFolder, read_config
from bdlf.runs.identity import dataset_id
from bdlf.runs.record import images_of
from bdlf.runs.selection import LAST, UNFINISHED, selection_rules
from bdlf.scoring.written import digest, write_scores
from bdlf.system.device import accelerator, configure_process, device_name
from bdlf.system.errors import InputError
from bdlf.training.scoring import score_models

log = logging.getLogger("bdlf")

_NO_PROTOCOL = ("batch", "every", "holdout")
"""Keys of `evaluation` that change no score."""


def score_run(config: EvaluateConfig) -> None:
    """Score the run `config.run` with the options of `config`, and write the scores below its folder.

    Raises InputError for options that do not fit the run, weights that are gone, and images that have changed.
    """
    assert config.run is not None
    folder = RunFolder(Path(config.run))
    options = _options(config, folder)
    rule = selection_rules(config.selection)[-1]
    if rule not in selection_rules(options.selection):
        raise InputError(f"selection={rule}: {folder.path} was trained with selection={options.selection}")

    # Open it
    configure_process(devices=options.devices, threads=options.threads, deterministic=options.deterministic)
    device = torch.device(accelerator(options.devices))
    run = open_run(folder.path, selection=rule, config=options, device=device)
    folder.require_fingerprint(images_of(run.checkpoint["fingerprint"]), run.images_fingerprint)

    # Score it
    epoch = run.checkpoint["epoch"] - (not run.checkpoint["step"])  # from 0: the last one that is done or has begun
    finished = run.checkpoint["epoch"] == options.schedule.epochs if rule == LAST else folder.result.is_file()
    selection = rule if finished else UNFINISHED + rule
    rows = np.flatnonzero(run.table["split"] == "test") if config.save_features else None
    (metrics, scores), features = score_models(
        run.trained.models,
        run.store(device),
        run.table,
        run.settings["test"],
        run.scoring,
        epoch=epoch,
        selection=selection,
        rows=rows,
    )

    # Write the scores
    output = Path(config.output) if config.output else folder.path / "evaluations" / _name(options, selection, epoch)
    if rows is not None:
        reported = next(iter(features))
        write_features(output / "features.npz", features[reported], rows, run.table)
        log.info("features of the %s model written to %s", reported, output / "features.npz")
    write_scores(output, metrics, scores, **_facts(run, selection), device=device_name(device))


def _options(config: EvaluateConfig, folder: RunFolder) -> Config:
    """The run's own configuration, in which the keys of `config` about scoring and about this machine replace its own.

    Raises InputError for another split than the run's, and for a value that no run can have.
    """
    options = read_config(folder.config)
    if config.dataset.split not in (None, options.dataset.split):
        raise InputError(
            f"dataset.split={config.dataset.split}: {config.run} was trained on split {options.dataset.split}, so half "
            "of the test identities of any other split are its training identities; train one model for each split"
        )
    given = {name: value for name, value in dataclasses.asdict(config.evaluation).items() if value is not None}
    options.evaluation = dataclasses.replace(options.evaluation, **given)
    options.dataset.root = config.dataset.root or options.dataset.root
    options.dataset.follow_links |= bool(config.dataset.follow_links)
    options.data, options.devices, options.threads = config.data, config.devices, config.threads
    check_options(options)
    return options


def _name(options: Config, selection: str, epoch: int) -> str:
    protocol = {key: value for key, value in dataclasses.asdict(options.evaluation).items() if key not in _NO_PROTOCOL}
    return digest([protocol, selection, epoch])


def _facts(run: Experiment, selection: str) -> dict[str, object]:
    return {
        "run_id": run.checkpoint["run_id"],
        "label": run.folder.label,
        "dataset": dataset_id(run.config.dataset),
        "fingerprint": run.images_fingerprint,
        "test_fingerprint": run.test_fingerprint,
        "trained_identities": len(run.sampler.pids),
        "held_out_identities": run.held_out_identities,
        "seed": run.config.seed,
        "variant": run.config.variant,
        "selection": selection,
        "epochs": run.config.schedule.epochs,
    }
