"""Compare a dataset on disk with the published one, and name what is missing, extra, unreadable or misplaced.

Exit code 0: nothing is wrong; 1: something is; 2: there is no such folder or option.

Examples
  python -m bdlf.check dataset=sysu dataset.root=/data/SYSU-MM01
  python -m bdlf.check dataset=regdb dataset.split=3 fast=true
  python -m bdlf.check dataset=llcm json=true
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdlf.commandline.command import run_command
from bdlf.commandline.jobs import DONE, FAILED
from bdlf.config import CheckConfig, Source
from bdlf.datasets import DATASETS, dataset_named
from bdlf.system.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from bdlf.datasets.description import Published
    from bdlf.datasets.problems import Collected


def check(config: CheckConfig) -> int:
    """Returns the exit code."""
    from bdlf.runs.findings_table import show_report

    if config.dataset.name is None:
        raise InputError(f"name the dataset to check: dataset={', dataset='.join(DATASETS)}")
    report = inspect(config.dataset, fast=config.fast)
    if config.json:
        print(json.dumps(report, indent=2))
    else:
        show_report(report)
    return DONE if report["ok"] else FAILED


def inspect(dataset: Source, *, fast: bool) -> dict[str, Any]:
    """What `json=true` prints: dataset, root, fingerprint, counts, protocols, findings, notes, hint, ok and more.

    `fingerprint` is None where the listing cannot be trusted, and where several numbered splits are checked together.
    Raises `InputError` for an absent root or a split that there is not.
    """
    from bdlf.data import fingerprint, is_synthetic
    from bdlf.datasets.checking import report
    from bdlf.datasets.checking.mistakes import likely_mistake
    from bdlf.datasets.checking.published import sizes_of
    from bdlf.datasets.problems import Collected

    assert dataset.name is not None
    name, drawn = dataset.name, not dataset_named(dataset.name).has_files
    root = None if drawn or dataset.root is None else str(Path(dataset.root))
    problems = Collected()
    expected = _expected(dataset, root, problems)
    tables = _read(dataset, root, problems)
    counts = report.count_rows(tables, expected, problems)
    digest = None
    if len(tables) == 1 and not problems.stopping:
        digest = fingerprint(next(iter(tables.values())), root)
    notes: list[str] = []
    opened = 0
    if root is not None:
        follow = bool(dataset.follow_links)
        notes, opened = report.look_around(
            name, Path(root), tables, expected, problems, follow_links=follow, decode=not fast
        )
    protocols = [row for split, table in tables.items() for row in _protocol_rows(name, root, split, table, problems)]
    hint = None
    if root is not None:
        found = sizes_of(next(iter(tables.values())))
        hint = likely_mistake(name, Path(root), found, expected, problems.findings)
    return {
        "dataset": name,
        "root": root,
        "fingerprint": digest,
        "synthetic": drawn or (root is not None and is_synthetic(root)),
        "images_opened": opened,
        "counts": counts,
        "protocols": protocols,
        "findings": [finding._asdict() for finding in problems.findings],
        "notes": notes,
        "hint": hint,
        "ok": not problems.findings,
    }


def _expected(dataset: Source, root: str | None, problems: Collected) -> Published | None:
    """What the dataset must hold: what is published or recorded, and of the synthetic dataset what its options say."""
    from bdlf.datasets.checking.published import published
    from bdlf.datasets.record import RECORD
    from bdlf.datasets.synthetic import asked_for

    assert dataset.name is not None
    if not DATASETS[dataset.name].has_files:
        return asked_for(**dataclasses.asdict(dataset.dataset().synthetic))
    try:
        return published(dataset.name, root)
    except InputError as error:
        problems.suspect("record of a synthetic tree", RECORD, str(error))
        return None


def _read(dataset: Source, root: str | None, problems: Collected) -> dict[int | None, pd.DataFrame]:
    """The listing of each numbered split, or of the one that is named; key None where there are no numbered splits."""
    from bdlf.data import listing

    assert dataset.name is not None
    name, described = dataset.name, DATASETS[dataset.name]
    if not described.has_files:
        whole = dataset.dataset()
        drawn = {"seed": whole.seed, **dataclasses.asdict(whole.synthetic)}
        return {None: listing(name, None, split=whole.split, synthetic=drawn, problems=problems)}
    numbers = described.numbered_splits if dataset.split is None else [dataset.split]
    follow = bool(dataset.follow_links)
    return {
        described.split_number(split): listing(name, root, split=split, follow_links=follow, problems=problems)
        for split in numbers or [1]
    }


def _protocol_rows(
    name: str, root: str | None, split: int | None, table: pd.DataFrame, problems: Collected
) -> list[dict[str, Any]]:
    """Queries and gallery images of every mode and direction, for each gallery that can be had."""
    from bdlf.datasets.checking.report import asked_protocols, protocol_row, published_trial, split_label
    from bdlf.evaluation import Asked, choices, settings

    if table.empty:
        return []
    label = split_label(split)
    rows = []
    for choice in (one for asked in asked_protocols(name, root) for one in choices(name, asked)):
        try:
            scored = settings(name, table, Asked.of(choice), root=root)
        except InputError as error:
            problems.suspect("protocol cannot be scored", f"{label}{choice.name}", f"{label}{error}")
            continue
        for setting in scored:
            queries, gallery = map(len, setting.trials[0])
            expected = published_trial(name, root, setting.name)
            rows.append(protocol_row(split, setting.name, queries, gallery, expected, problems))
    return rows


def main() -> None:
    """The command."""
    run_command("check", CheckConfig, check, __doc__ or "", folder="on_disk")


if __name__ == "__main__":
    main()
