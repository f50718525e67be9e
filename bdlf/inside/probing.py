"""What `python -m bdlf.probe` does: open a run or a file of features, probe it, and write what was found."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import IO, Any

import pandas as pd

from bdlf.config import ProbeConfig, VisualizeConfig
from bdlf.data import fingerprint
from bdlf.datasets import dataset_named
from bdlf.evaluation import Asked, settings
from bdlf.experiment import Experiment
from bdlf.inside.claims import print_probes, probes_figure, verdicts
from bdlf.inside.controls import has_factors, with_controls
from bdlf.inside.features import InsideFeatures, inside_features
from bdlf.inside.material import Material
from bdlf.inside.probes import probe
from bdlf.inside.ridge import FOLDS
from bdlf.inside.style import picture
from bdlf.inside.targets import true_factors
from bdlf.runs.identity import dataset_id
from bdlf.runs.probes import NAME, write_probes
from bdlf.runs.record import images_of
from bdlf.system.device import configure_process
from bdlf.system.errors import InputError
from bdlf.system.files import write_atomically

log = logging.getLogger("bdlf")


def probe_and_write(config: ProbeConfig, names: list[str] | None) -> None:
    """Probe what `config` names: the features `names` of a run, or a file of features. Print and write the result.

    Raises InputError for a run without weights, for images that are not those of the run, for a feature that it does
    not have, and for a damaged file.
    """
    configure_process(devices=config.devices, threads=config.threads)
    shared = {field.name for field in dataclasses.fields(VisualizeConfig)}
    material = Material(
        VisualizeConfig(**{key: value for key, value in vars(config).items() if key in shared and key != "what"})
    )
    rows, facts = (_of_run if config.features is None else _of_file)(material, names, config.seed)
    title = f"{facts['label']} ({facts['run_id']})" if facts["run_id"] else str(facts["label"])
    title = f"probes of {title} on {facts['dataset']}"
    print_probes(rows, title)
    found = [one._asdict() for one in verdicts(rows)]
    folder = material.output.parent if config.output is None else Path(config.output)
    stem = NAME if config.features is None else f"{Path(config.features).stem}-{NAME}"
    path = folder / stem
    write_probes(path, rows, **facts, seed=config.seed, folds=FOLDS, probed=_probed(rows), claims=found)
    figure = probes_figure(rows, title)
    for form in ("png", "svg"):
        write_atomically(path.with_suffix(f".{form}"), partial(_give, picture(figure, form)))
    log.info("written to %s, and as a figure to %s and .svg", path, path.with_suffix(".png"))


def _of_run(material: Material, names: list[str] | None, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    run = _with_more_people(material)
    inside = with_controls(run, inside_features(run, device=material.device, names=names))
    config, how = run.config, run.scoring
    facts = {
        "run_id": run.checkpoint["run_id"],
        "label": run.folder.label,
        "dataset": dataset_id(config.dataset),
        "fingerprint": material.run.images_fingerprint,
        "test_identities": int(inside.table["pid"].nunique()),
        "variant": config.variant,
        "method": config.method.name,
        "model": next(iter(run.trained.models)),
        "epoch": run.checkpoint["epoch"],
        "feature": how.feature,
        "flip": how.flip,
        "left_out": _left_out(inside),
    }
    return probe(inside, run.settings["test"], seed=seed), facts


def _with_more_people(material: Material) -> Experiment:
    """The run with as many test identities of the synthetic set as `dataset.synthetic.test_identities` asks for.

    A larger set contains every smaller one, in the same rows, so retrieval is still scored on the run's own images.
    Raises InputError if the run is of another set, or has more test identities itself.
    """
    run, asked = material.run, material.config.dataset.synthetic.test_identities
    own = run.config.dataset.synthetic.test_identities
    if asked is None or asked == own:
        return run
    if dataset_named(run.config.dataset.name).has_files:
        raise InputError(f"dataset.synthetic.test_identities={asked}: only the synthetic set can draw more people")
    if asked < own:
        raise InputError(f"dataset.synthetic.test_identities={asked}: the run is scored on {own}; give {own} or more")
    run.folder.require_fingerprint(images_of(run.checkpoint["fingerprint"]), run.images_fingerprint)
    config = copy.deepcopy(run.config)
    config.dataset.synthetic.test_identities = asked
    larger = Experiment(config, run.folder)
    larger.trained = run.trained
    larger.checkpoint = {**run.checkpoint, "fingerprint": None}  # the images of the run are compared above
    larger.settings = run.settings
    return larger


def _of_file(material: Material, names: list[str] | None, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    inside, file = material.inside, Path(str(material.config.features))
    if has_factors(inside):
        inside = dataclasses.replace(inside, features={**inside.features, "factors": true_factors(inside.table)})
    source = material.config.dataset.dataset()
    used = settings(source.name, material.table, Asked(), root=source.root)
    facts = {
        "run_id": None,
        "label": file.stem,
        "features_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "dataset": dataset_id(source),
        "fingerprint": fingerprint(material.table, source.root),
        "left_out": _left_out(inside),
    }
    return probe(inside, used, seed=seed), facts


def _left_out(inside: InsideFeatures) -> list[str]:
    """What was not probed, in words."""
    return [] if has_factors(inside) else ["factors: only the synthetic set knows them"]


def _probed(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["feature"]))


def _give(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
