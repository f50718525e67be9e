"""The protocol card: the facts that a reader must know to compare a number. They stand beside every number we show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bdlf.runs.record import FIGURES, metric_values
from bdlf.runs.selection import LAST, RULES, UNFINISHED

COSTS = ("train_seconds", "images_per_second", "peak_memory_gib", "parameters", "train_gflops", "inference_gflops")
"""Keys of a result that say what the run cost."""
ROWS = "result_rows"
"""The key under which W&B's summary of a run holds all rows of its result, as JSON."""
_SHARED = ("run_id", "label", "fingerprint", "test_fingerprint", "trained_identities", "held_out_identities")
"""Keys of a result that `flat_rows` repeats in every row."""


def flat_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A flat row for each row of `metrics`: run, dataset and fingerprint, card, figures and their std in percent.

    `commit`, `dirty` and `versions` (as text) describe the code that computed the row. That is the code of the run, or,
    for a row that was added to a finished run, the code of the later call that added it.
    """
    shared = {key: result[key] for key in _SHARED if key in result}
    added = {index: one for one in result.get("additions") or () for index in one["rows"]}
    rows = []
    for index, row in enumerate(result["metrics"]):
        card = {key: value for key, value in row.items() if key not in ("mean", "std", "trials")}
        spread = row["std"] or dict.fromkeys(FIGURES)
        figures = {name: row["mean"][name] for name in FIGURES} | {f"{name}_std": spread[name] for name in FIGURES}
        origin = _origin(added.get(index, result))
        rows.append({**shared, **card, "trials": len(row["trials"]), **figures, **origin})
    return rows


def _origin(facts: Mapping[str, Any]) -> dict[str, Any]:
    versions = facts.get("versions") or {}
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "numpy") if versions.get(name))
    return {"commit": facts.get("commit"), "dirty": facts.get("dirty"), "versions": packages}


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a run in W&B: the figures of its result, its costs, and all rows as JSON under ROWS.

    Figures of the last epoch have the names of the columns of metrics.csv. Figures of an epoch that another rule chose
    have `<rule>/` before these names. Rows that differ only in feature or flip have the same names; the summary then
    holds the figures of the first of these rows.
    """
    values: dict[str, Any] = {name: result[name] for name in COSTS if name in result}
    for row in result["metrics"]:
        prefix = "" if row["selection"] == LAST else f"{row['selection']}/"
        values = {prefix + name: value for name, value in metric_values([row]).items()} | values
    return {**values, ROWS: json.dumps(flat_rows(result))}


def common_lines(result: Mapping[str, Any]) -> list[str]:
    """The protocol card of a result as lines of text.

    The first line names the data. Then comes a line for every way in which features were taken (feature, similarity,
    flip), and a line for every rule that chose an epoch, other than the last epoch.
    """
    row = result["metrics"][0]
    if "splits" in result:
        data = f"{row['dataset']}, mean over splits {', '.join(map(str, result['splits']))} (a trial is a split)"
        data += f", fingerprints {', '.join(known[:8] for known in result['fingerprints'])}"
        commits = [(commit or "unknown")[:8] for commit in result.get("run_commits", [])]
        if commits:
            data += f", trained at {'commits' if len(commits) > 1 else 'commit'} {', '.join(commits)}"
    else:
        split = f", split {row['split']}" if row["split"] is not None else ""
        known = result["fingerprint"]
        whole = known[:8] if known else "unknown (not every image is there)"
        data = f"{row['dataset']}{split}, fingerprint {whole}"
        if "test_fingerprint" in result:  # results written before this key existed lack it
            data += f", test images {result['test_fingerprint'][:8]}"
    trained, held_out = result.get("trained_identities"), result.get("held_out_identities")
    if trained:
        data += f", trained on {trained} of {trained + held_out} identities"
    ways = dict.fromkeys((row["feature"], row["similarity"], row["flip"]) for row in result["metrics"])
    how = [
        f"feature {feature or 'as given'}, {similarity} similarity, flip averaging {_FLIP[flip]}"
        for feature, similarity, flip in ways
    ]
    reported = [row["selection"] for row in result["metrics"]]
    rules = [f"{rule}: {RULES[rule]}" for rule in RULES if rule != LAST and rule in reported]
    if any(rule is not None and rule.startswith(UNFINISHED) for rule in reported):
        rules.append("unfinished: of a run that has not come to its end; another epoch may be chosen yet")
    return [data, *how, *rules]


_FLIP = {True: "on", False: "off", None: "unknown"}
