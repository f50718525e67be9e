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
from bdlf.system.errors import InputError
from bdlf.system.wording import printable

if TYPE_CHECKING:
    import pandas as pd

    from bdlf.datasets.checking.inspection import Tree
    from bdlf.datasets.checking.published import Published
    from bdlf.datasets.problems import Collected

DATASETS = ("sysu", "regdb", "llcm", "synthetic")


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

    `fingerprint` is None where the listing cannot be trusted, and for RegDB's ten splits together. Raises `InputError`
    for an absent root or a split that there is not.
    """
    from bdlf.data import fingerprint, is_synthetic
    from bdlf.datasets.checking import inspection
    from bdlf.datasets.checking.mistakes import likely_mistake
    from bdlf.datasets.checking.published import published, sizes_of
    from bdlf.datasets.problems import Collected

    assert dataset.name is not None
    name = dataset.name
    root = None if name == "synthetic" or dataset.root is None else str(Path(dataset.root))
    problems = Collected()
    try:
        expected = _of_options(dataset) if name == "synthetic" else published(name, root)
    except InputError as error:
        problems.suspect("record of a synthetic tree", "synthetic.json", str(error))
        expected = None
    tables = _read(dataset, root, problems)
    counts = [row for split, table in tables.items() for row in _count_rows(name, split, table, expected, problems)]
    digest = None
    if len(tables) == 1 and not problems.stopping:
        digest = fingerprint(next(iter(tables.values())), root)
    notes: list[str] = []
    opened = 0
    if root is not None:
        tree = inspection.walk(name, Path(root), problems, follow_links=bool(dataset.follow_links))
        _look_around(name, Path(root), tree, tables, expected, notes, problems)
        if not fast:
            marks = inspection.decode_all(Path(root), list(tree.sizes), problems)
            inspection.check_marks(name, Path(root), marks, problems)
            opened = len(tree.sizes)
    protocols = [row for split, table in tables.items() for row in _protocol_rows(name, root, split, table, problems)]
    hint = None
    if root is not None:
        found = sizes_of(next(iter(tables.values())))
        hint = likely_mistake(name, Path(root), found, expected, problems.findings)
    return {
        "dataset": name,
        "root": root,
        "fingerprint": digest,
        "synthetic": name == "synthetic" or (root is not None and is_synthetic(root)),
        "images_opened": opened,
        "counts": counts,
        "protocols": protocols,
        "findings": [finding._asdict() for finding in problems.findings],
        "notes": notes,
        "hint": hint,
        "ok": not problems.findings,
    }


def _read(dataset: Source, root: str | None, problems: Collected) -> dict[int | None, pd.DataFrame]:
    """The listing, or RegDB's of every split that is asked for, by split."""
    from bdlf.data import listing
    from bdlf.datasets.regdb import SPLITS

    assert dataset.name is not None
    if dataset.name == "synthetic":
        whole = dataset.dataset()
        drawn = {"seed": whole.seed, **dataclasses.asdict(whole.synthetic)}
        return {None: listing("synthetic", None, split=whole.split, synthetic=drawn, problems=problems)}
    follow = bool(dataset.follow_links)
    if dataset.name == "regdb":
        splits = SPLITS if dataset.split is None else [dataset.split]
        return {split: listing("regdb", root, split=split, follow_links=follow, problems=problems) for split in splits}
    split = dataset.split or 1
    return {None: listing(dataset.name, root, split=split, follow_links=follow, problems=problems)}


def _of_options(dataset: Source) -> Published:
    """What the synthetic set must hold: nothing published, but what its options say."""
    from bdlf.datasets.checking.published import Place, Published, Size

    options = dataset.dataset().synthetic
    identities = {"train": options.train_identities, "test": options.test_identities}
    sizes: dict[Place, Size] = {}
    for split, count in identities.items():
        images = count * options.images_per_identity
        sizes[split, None, None] = Size(count, 2 * images)
        sizes |= {(split, modality, None): Size(count, images) for modality in ("vis", "ir")}
    return Published("dataset.synthetic", sizes)


def _count_rows(
    name: str, split: int | None, table: pd.DataFrame, expected: Published | None, problems: Collected
) -> list[dict[str, Any]]:
    """A row for every split, modality and camera that is on disk or expected; differences go to `problems`."""
    from bdlf.data.listing import MODALITIES, SPLITS
    from bdlf.datasets.checking.published import Size, compare, sizes_of

    found = sizes_of(table)
    if expected is not None and len(table):
        for finding in compare(found, expected, label="" if split is None else f"split {split}: "):
            problems.suspect(*finding)
    wanted = {} if expected is None else expected.sizes
    kinds = [None, *MODALITIES]
    places = sorted(found.keys() | wanted.keys(), key=lambda at: (SPLITS.index(at[0]), kinds.index(at[1]), at[2] or 0))
    rows = []
    for place in places:
        have, want = found.get(place, Size(0, 0)), wanted.get(place)
        same = want is None or (have.images == want.images and want.identities in (None, have.identities))
        rows.append(
            {
                "regdb_split": split,
                **dict(zip(("split", "modality", "camera"), place, strict=True)),
                "identities": have.identities,
                "images": have.images,
                "expected_identities": None if want is None else want.identities,
                "expected_images": None if want is None else want.images,
                "ok": None if want is None else same,
            }
        )
    return rows


def _look_around(
    name: str,
    root: Path,
    tree: Tree,
    tables: dict[int | None, pd.DataFrame],
    expected: Published | None,
    notes: list[str],
    problems: Collected,
) -> None:
    """What the readers do not look at, less the images' pixels."""
    from bdlf.datasets.checking import inspection
    from bdlf.datasets.sysu import PERMUTATIONS

    unread = {finding.kind for finding in problems.findings} & {"missing list", "unreadable list", "empty list"}
    inspection.check_places(name, root, tree.sizes, problems)
    if any(len(table) for table in tables.values()) and not unread:
        count = expected.unlisted if expected is not None else 0
        if note := inspection.check_unlisted(name, root, tree.sizes, list(tables.values()), count, problems):
            notes.append(note)
    if name == "regdb":
        inspection.check_repeated_splits(root, [split for split in tables if split is not None], problems)
    elif name == "llcm":
        inspection.check_test_copies(root, tree.sizes, tables[None], problems)
    elif (root / PERMUTATIONS).is_file():
        inspection.check_permutations(root, tables[None], problems)
    elif len(tables[None]):
        notes.append(f"{PERMUTATIONS} is absent, as in some copies: evaluation.gallery=official cannot be scored")
    notes += [printable(f"{path} is no image: passed over") for path in tree.others]


def _protocol_rows(
    name: str, root: str | None, split: int | None, table: pd.DataFrame, problems: Collected
) -> list[dict[str, Any]]:
    """Queries and gallery images of every mode and direction; SYSU-MM01's official galleries too, where they are."""
    from bdlf.data import is_synthetic
    from bdlf.datasets.checking.published import PROTOCOL_SIZES
    from bdlf.datasets.sysu import PERMUTATIONS
    from bdlf.evaluation.protocols import choices, settings

    if table.empty:
        return []
    genuine = root is not None and not is_synthetic(root)
    asked: list[dict[str, Any]] = [{}]
    if name == "sysu" and (Path(root or "") / PERMUTATIONS).is_file():
        asked += [{"gallery": "official", "shots": shots} for shots in ((1, 10) if genuine else (1,))]
    label = "" if split is None else f"split {split}: "
    rows = []
    for choice in (one for options in asked for one in choices(name, **options)):
        options = {key: value for key, value in dataclasses.asdict(choice).items() if key != "dataset"}
        try:
            scored = settings(name, table, root=root, **options)
        except InputError as error:
            problems.suspect("protocol cannot be scored", f"{label}{choice.name}", f"{label}{error}")
            continue
        for setting in scored:
            queries, gallery = map(len, setting.trials[0])
            wanted = PROTOCOL_SIZES.get(name, {}).get(setting.name, (None, None)) if genuine else (None, None)
            same = queries == wanted[0] and wanted[1] in (None, gallery)
            if wanted[0] is not None and not same:
                published = " x ".join("?" if number is None else f"{number:,}" for number in wanted)
                message = f"{label}{setting.name}: {queries:,} x {gallery:,} images, {published} published"
                problems.suspect("protocol of another size", f"{label}{setting.name}", message)
            rows.append(
                {
                    "regdb_split": split,
                    "protocol": setting.name,
                    "queries": queries,
                    "gallery": gallery,
                    "expected_queries": wanted[0],
                    "expected_gallery": wanted[1],
                    "ok": None if wanted[0] is None else same,
                }
            )
    return rows


def main() -> None:
    """The command."""
    run_command("check", CheckConfig, check, __doc__ or "", folder="on_disk")


if __name__ == "__main__":
    main()
