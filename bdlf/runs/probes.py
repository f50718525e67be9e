"""Writes and reads `probes.json`: what linear probes found in the features of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bdlf.runs.record import package_versions, source_state
from bdlf.system.errors import InputError
from bdlf.system.files import read_json, write_json

NAME = "probes.json"
SCHEMA = 1
"""The version of the format of `probes.json`."""


def write_probes(path: Path, rows: pd.DataFrame, **facts: Any) -> None:
    """Write `probes.json`: the `facts`, the code's commit and versions, and the rows of `bdlf.inside.probe`.

    An end of an interval that does not exist is null.
    """
    records = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in rows.to_dict("records")
    ]
    write_json(path, {"schema": SCHEMA, **facts, "versions": package_versions(), **source_state(), "rows": records})


def read_probes(path: Path) -> dict[str, Any]:
    """The content of a `probes.json`. Raises InputError if it was not written in the present SCHEMA."""
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("rows"), list):
        raise InputError(f"{path} is not a file of probes of this version of bdlf; python -m bdlf.probe writes it anew")
    return cast(dict[str, Any], found)
