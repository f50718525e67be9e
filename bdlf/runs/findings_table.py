"""Prints what the check of a dataset has found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bdlf.datasets import DATASETS
from bdlf.datasets.description import MODALITIES
from bdlf.system.screen_table import print_table

_SHOWN = 5  # examples that are shown of each kind of finding


def show_report(report: Mapping[str, Any]) -> None:
    """Print the report that `bdlf.check.inspect` returns.

    It shows the counts, the protocols, the findings by kind, the mistake that explains them if it is a known one, and a
    last line that sums up.
    """
    kind = "-synthetic" if report["synthetic"] and DATASETS[report["dataset"]].has_files else ""
    name = f"{report['dataset']}{kind}"
    at = f" in {report['root']}" if report["root"] is not None else ""
    source = "recorded" if report["synthetic"] else "published"
    if any(row["images"] for row in report["counts"]):
        _show_counts(report["counts"], f"{name}{at}", source)
    else:
        print(f"{name}{at}: no image can be listed")
    if report["protocols"]:
        _show_protocols(report["protocols"], source)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for finding in report["findings"]:
        by_kind[finding["kind"]].append(finding["message"].replace(f"{report['root']}/", ""))
    for kind, messages in by_kind.items():
        _examples(f"{kind}: {len(messages):,}", messages)
    if report["notes"]:
        _examples(f"to know, nothing wrong: {len(report['notes']):,}", report["notes"])
    if report["hint"]:
        print(f"Looks like a known mistake: {report['hint']}.")
    print(_last_line(name, report))


def _last_line(name: str, report: Mapping[str, Any]) -> str:
    opened = f"{report['images_opened']:,} images opened" if report["images_opened"] else "no image opened"
    if report["ok"]:
        mark = f", fingerprint {report['fingerprint'][:16]}" if report["fingerprint"] else ""
        return f"{name}: nothing wrong ({opened}{mark})"
    kinds = _plural(len({finding["kind"] for finding in report["findings"]}), "kind")
    return f"{name}: {_plural(len(report['findings']), 'finding')} of {kinds} ({opened}); json=true has them all"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _examples(heading: str, lines: Sequence[str]) -> None:
    print(heading)
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN:,} more")


def _show_counts(rows: Iterable[Mapping[str, Any]], title: str, source: str) -> None:
    headings = ["split", "modality", "camera", "identities", source, "images", source, ""]
    lines = []
    merged = _merged(rows)
    cameras: dict[tuple, set[int | None]] = defaultdict(set)
    for row, _ in merged:
        cameras[row["split"], row["modality"]].add(row["camera"])
    for row, splits in merged:
        if row["modality"] is not None and row["camera"] is None and len(cameras[row["split"], row["modality"]]) == 2:
            continue  # the modality has a single camera, whose line says the same
        lines.append(
            [
                f"{row['split']}{f' of {splits}' if splits else ''}",
                MODALITIES[row["modality"]] if row["modality"] else "all",
                "all" if row["camera"] is None else str(row["camera"]),
                *(_number(row[key]) for key in ("identities", "expected_identities", "images", "expected_images")),
                _verdict(row, "images") or _verdict(row, "identities") or _fine(row),
            ]
        )
    print_table(headings, lines, title=title, figures=range(3, 7), text=(7,), dispensable=(4, 6))


def _show_protocols(rows: Iterable[Mapping[str, Any]], source: str) -> None:
    headings = ["protocol", "queries", source, "gallery", source, ""]
    lines = [
        [
            f"{row['protocol']}{f' of {splits}' if splits else ''}",
            *(_number(row[key]) for key in ("queries", "expected_queries", "gallery", "expected_gallery")),
            _verdict(row, "queries") or _verdict(row, "gallery") or _fine(row),
        ]
        for row, splits in _merged(rows)
    ]
    print_table(headings, lines, figures=range(1, 5), text=(5,), dispensable=(2, 4))


def _merged(rows: Iterable[Mapping[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """Each distinct row once, with the RegDB splits that it belongs to, in words ('' for rows without a split)."""
    splits: dict[tuple, list[int]] = defaultdict(list)
    for row in rows:
        same = tuple((key, value) for key, value in row.items() if key != "regdb_split")
        splits[same] += [] if row["regdb_split"] is None else [row["regdb_split"]]
    return [(dict(row), ", ".join(map(str, own)) if len(own) < 10 else "1-10") for row, own in splits.items()]


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _verdict(row: Mapping[str, Any], what: str) -> str:
    have, want = row[what], row[f"expected_{what}"]
    if want is None or have == want:
        return ""
    return f"{want - have:,} {what} missing" if have < want else f"{have - want:,} {what} too many"


def _fine(row: Mapping[str, Any]) -> str:
    return "ok" if row["ok"] else ""
