"""The mistakes that people make with any dataset, and which of them a damaged tree looks like.

Mistakes that only one dataset invites are named by that dataset's own file (`Checks.hint`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bdlf.datasets import DATASETS
from bdlf.datasets.description import Evidence, Place, Published, Size
from bdlf.datasets.problems import Finding

_MARKS = {name: dataset.checks.marks for name, dataset in DATASETS.items() if dataset.checks is not None}


def likely_mistake(
    name: str, root: Path, found: Mapping[Place, Size], expected: Published | None, findings: Sequence[Finding]
) -> str | None:
    """A line that says what most likely went wrong, and the remedy; None where no known mistake fits."""
    misplaced = _elsewhere(name, root)
    if misplaced or not findings or expected is None:
        return misplaced
    kinds = {finding.where: finding.kind for finding in findings}
    have = {split: found.get((split, None, None), Size(0, 0)).identities or 0 for split in ("train", "val", "test")}
    want = _identities(expected)
    checks = DATASETS[name].checks
    hint = checks.hint(Evidence(root, kinds, have, want)) if checks is not None and checks.hint is not None else None
    return hint or _foreign_lists(name, have, want)


def _identities(expected: Published) -> dict[str, int]:
    """Identities of each split, 0 where the dataset does not have the split."""
    known = {split: size.identities or 0 for (split, kind, _), size in expected.sizes.items() if kind is None}
    return {"train": 0, "val": 0, "test": 0} | known


def _elsewhere(name: str, root: Path) -> str | None:
    """The dataset lies above or below `root`, or another dataset lies there."""

    def lies_in(folder: Path, dataset: str) -> bool:
        present = sum((folder / mark).is_dir() for mark in _MARKS[dataset])
        return present > len(_MARKS[dataset]) / 2

    if lies_in(root, name):
        return None
    for other in _MARKS:
        if lies_in(root, other):
            return f"another dataset: this folder looks like {other}; set dataset={other}"
    for folder in (*sorted(root.glob("*/")), *sorted(root.glob("*/*/"))):
        if lies_in(folder, name):
            return f"nested folder: the dataset lies one or two levels below; set dataset.root={folder}"
    above = root.resolve()
    for parent in (above.parent, above.parent.parent):
        if lies_in(parent, name):
            return f"dataset.root is inside the dataset, too deep; set dataset.root={parent}"
    return None


def _foreign_lists(name: str, have: Mapping[str, int], want: Mapping[str, int]) -> str | None:
    """The lists of train and test are exchanged, or the numbers of identities are those of another dataset."""
    if want["train"] != want["test"] and (have["train"], have["test"]) == (want["test"], want["train"]):
        return "wrong split files: the lists of train and test are swapped; exchange them"
    for other, dataset in DATASETS.items():
        if other == name or dataset.published is None:
            continue
        theirs = _identities(dataset.published)
        if all(have[split] == theirs[split] for split in ("train", "test")):
            source = dataset.published.source
            return f"wrong split files: the numbers of identities are those of {source}; restore this dataset's"
    return None
