"""`evaluate features=FILE.npz`: scores features that any other code has extracted."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pandas as pd

from bdlf.assembly import dataset_split, read_listing
from bdlf.config import Dataset, EvaluateConfig
from bdlf.data import fingerprint
from bdlf.datasets import DATASETS
from bdlf.datasets.checking.published import quick_findings
from bdlf.datasets.problems import Collected
from bdlf.datasets.tree import file_stats
from bdlf.evaluation import Asked, score, settings
from bdlf.evaluation.features_file import read_features
from bdlf.runs.identity import dataset_id
from bdlf.runs.logs import warn_of
from bdlf.runs.record import metrics_row
from bdlf.scoring.written import digest, write_scores
from bdlf.system.errors import InputError

log = logging.getLogger("bdlf")


def score_features(config: EvaluateConfig) -> None:
    """Score the features in the file `config.features`, and write the scores beside it.

    Raises InputError if no dataset is named, if the file is damaged, and if an image of the protocol has no feature.
    """
    assert config.features is not None
    *known, last = DATASETS
    if config.dataset.name is None:
        raise InputError(f"features= needs their dataset: dataset={', '.join(known)} or {last}")
    source = config.dataset.dataset()
    split = dataset_split(source)
    if split is not None and config.dataset.split is None:
        splits = DATASETS[source.name].numbered_splits
        raise InputError(
            f"features= of {DATASETS[source.name].title} are of one of its {len(splits)} splits: "
            f"say which by dataset.split={splits[0]}..{splits[-1]}"
        )
    file, name = Path(config.features), dataset_id(source)
    table = read_listing(source, splits=("test",))
    asked = Asked.of(config.evaluation)
    used = settings(source.name, table, asked, root=source.root)
    features, rows, others = read_features(file, table)
    if others:
        log.warning(
            "%d of its images are no test images of %s, %s first: left out", len(others), source.name, others[0]
        )
    scores = [score(features, rows, table, setting) for setting in used]
    card = {"dataset": name, "split": split, "feature": None, "flip": None}
    card |= {"model": "features", "epoch": None, "selection": None}
    metrics = [metrics_row(setting, one, **card) for setting, one in zip(used, scores, strict=True)]
    tested = fingerprint(table, source.root)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    given = {option: value for option, value in vars(asked).items() if value is not None}
    place = file.parent / "evaluations" / f"{file.stem}-{digest([content, given, name, split, tested])}"
    whole, findings = _look_at_the_rest(source, table)
    write_scores(
        Path(config.output) if config.output else place,
        metrics,
        scores,
        run_id=None,
        label=file.stem,
        features_sha256=content,
        dataset=name,
        fingerprint=whole,
        test_fingerprint=tested,
        dataset_findings=findings,
        selection=None,
    )


def _look_at_the_rest(source: Dataset, table: pd.DataFrame) -> tuple[str | None, list[str]]:
    """The fingerprint of all images, and a message for everything that is wrong with them.

    The fingerprint is None if the images cannot all be listed. Faults of the training images stop training, but they
    change no score of given features, so here they are only warned of.
    """
    problems = Collected()
    everything = read_listing(source, problems=problems)
    whole = None if problems.stopping else fingerprint(everything, source.root)
    if source.root is None:
        return whole, []
    empty = table["path"][file_stats(Path(source.root), table["path"].tolist())[:, 0] == 0]
    findings: list[Any] = [finding.message for finding in problems.findings]
    if len(empty):
        findings.append(f"{len(empty)} of {len(table)} test images are empty files, {empty.iloc[0]} first")
    findings += quick_findings(everything, source.root, source.name)
    warn_of(findings, source.name)
    return whole, findings
