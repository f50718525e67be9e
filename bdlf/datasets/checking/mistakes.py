"""The mistakes that people make with these datasets, and which of them a damaged tree looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bdlf.datasets.checking.published import PUBLISHED, Place, Published, Size
from bdlf.datasets.problems import Finding

_MARKS = {
    "sysu": ("cam1", "cam2", "cam3", "cam4", "cam5", "cam6"),
    "regdb": ("Visible", "Thermal"),
    "llcm": ("vis", "nir", "idx"),
}
"""Folders at the root of a dataset; no two datasets share one."""


def likely_mistake(
    name: str, root: Path, found: Mapping[Place, Size], expected: Published | None, findings: Sequence[Finding]
) -> str | None:
    """A line that says what went wrong in all likelihood, and the remedy; None where nothing known fits."""
    misplaced = _elsewhere(name, root)
    if misplaced or not findings or expected is None:
        return misplaced
    kinds = {finding.where: finding.kind for finding in findings}
    have = {split: found.get((split, None, None), Size(0, 0)).identities or 0 for split in ("train", "val", "test")}
    want = {split: size.identities or 0 for (split, kind, _), size in expected.sizes.items() if kind is None}
    if name == "sysu":
        hint = _split_files_of_sysu(kinds, have, want)
    elif name == "regdb":
        hint = _half_extracted(root, kinds)
    else:
        hint = _no_test_folders(kinds)
    return hint or _foreign_lists(name, have, want)


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


def _split_files_of_sysu(kinds: Mapping[str, str], have: Mapping[str, int], want: Mapping[str, int]) -> str | None:
    both = want["train"] + want["val"]
    if have["train"] == both:
        return (
            f"train without val: exp/train_id.txt holds all {both} identities, those of validation too. Training on "
            "both is usual and is done here from the two files; restore exp/train_id.txt and exp/val_id.txt"
        )
    if kinds.get("exp/val_id.txt") is not None:
        return (
            "train without val: exp/val_id.txt is not there or cannot be read. Everyone trains on train + val "
            f"({both} identities), and only {want['train']} would be left; restore the file"
        )
    if (have["train"], have["val"]) == (want["val"], want["train"]) and have["train"] != have["val"]:
        return "wrong split files: exp/train_id.txt and exp/val_id.txt are swapped; exchange them"
    return None


def _half_extracted(root: Path, kinds: Mapping[str, str]) -> str | None:
    if not any((root / entry).is_dir() for entry in ("idx", *_MARKS["regdb"])):
        return None
    absent = [where for where, kind in kinds.items() if kind == "listed image is absent"]
    whole = {where.rpartition("/")[0] for where in absent}
    gone = [folder for folder in whole if not (root / folder).is_dir()]
    folders = [folder for folder in ("Visible", "Thermal") if kinds.get(folder) == "missing folder"]
    if not gone and not folders:
        return None
    lack = f"{' and '.join(folders)}" if folders else f"{len(gone)} identity folders"
    return f"RegDB extracted by half, without {lack}; extract RegDB.zip again, and check that it is whole"


def _no_test_folders(kinds: Mapping[str, str]) -> str | None:
    missing = [where for where, kind in kinds.items() if kind == "missing folder" and where.startswith("test_")]
    if not missing:
        return None
    return (
        f"LLCM without its test folders: {len(missing)} of 17 folders test_vis/cam* and test_nir/cam* are missing. "
        "They hold the query and gallery images and come in the same archive; extract it again"
    )


def _foreign_lists(name: str, have: Mapping[str, int], want: Mapping[str, int]) -> str | None:
    """The numbers of identities are those of another dataset, or train and test are exchanged."""
    if want["train"] != want["test"] and (have["train"], have["test"]) == (want["test"], want["train"]):
        return "wrong split files: the lists of train and test are swapped; exchange them"
    for other in _MARKS:
        theirs = PUBLISHED[other]
        if other == name:
            continue
        sizes = {split: size.identities or 0 for (split, kind, _), size in theirs.sizes.items() if kind is None}
        if all(have[split] == sizes.get(split, 0) for split in ("train", "test")):
            return f"wrong split files: the numbers of identities are those of {theirs.source}; restore this dataset's"
    return None
