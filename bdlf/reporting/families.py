"""Which configurations a table asks for. A cell of a table is the runs that have the hash of its configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bdlf.active import COMPONENTS, components, in_use, with_components
from bdlf.runs.identity import values_hash

Values = Mapping[str, Any]

VARIANTS = {
    # DFE, app, orth, skd
    (False, False, False, False): "baseline",
    (True, False, False, False): "dfe",
    (True, True, False, False): "dfe_app",
    (True, False, False, True): "dfe_skd",
    (False, True, True, True): "app_orth_skd",
    (True, True, False, True): "dfe_app_skd",
    (True, True, True, True): "full",
}
"""Rows of Table 2 by what is switched on."""
_FULL = (True, True, True, True)


@dataclass(frozen=True)
class Asked:
    """A row of a table."""

    group: str
    """The hash of its configuration without seed and split: the `group` of its runs in the tidy frame."""
    values: dict[str, Any]
    """Its flat configuration."""
    marks: dict[str, Any]
    """What stands in the table's key columns."""
    alias: str = ""
    """Another name of the row: the values of a by= table's keys, also of those that the run does not use."""


@dataclass(frozen=True)
class Family:
    """The rows of one table whose configurations agree in everything that the table does not vary."""

    rows: dict[str, Asked]
    common: dict[str, Any]
    """What of the configuration is the same in all rows that use it."""


@dataclass(frozen=True)
class Table:
    """How a table varies a configuration."""

    name: str
    title: str
    keys: tuple[str, ...]
    """Its key columns."""
    families: Callable[[Iterable[Values]], list[Family]]
    """The families that some of these configurations belong to, in the order in which they are found."""
    reference: str | None
    """The row that others are compared with; '' for the first, None where the table compares nothing."""
    names: tuple[str, ...] = ()
    """Its rows, where they are known before there are runs."""
    fixed: tuple[str, ...] = ()
    """Keys that the paper's own table holds at 3 (`dfe.stage`) or 6 (`dfe.blocks`)."""
    gaps: bool = True
    """A row without a run is shown as a gap."""


def _families(
    base_of: Callable[[Values], Values | None], rows: Mapping[str, Callable[[Values], Values | None]], marks: Mapping
) -> Callable[[Iterable[Values]], list[Family]]:
    """`base_of` gives the row that all rows are made from, or None for a configuration that is in none of them."""

    def find(configurations: Iterable[Values]) -> list[Family]:
        found: dict[str, Family] = {}
        for values in configurations:
            base = base_of(values)
            if base is None or (key := values_hash(base, without_split=True)) in found:
                continue
            asked = {name: change(base) for name, change in rows.items()}
            members = {
                name: Asked(values_hash(one, without_split=True), dict(one), marks[name])
                for name, one in asked.items()
                if one is not None
            }
            found[key] = Family(members, in_common([one.values for one in members.values()]))
        return list(found.values())

    return find


def in_common(configurations: Iterable[Values]) -> dict[str, Any]:
    """What is the same in all of these that use it, less RegDB's split, which numbers repetitions as the seed does."""
    used = [in_use(values) for values in configurations]
    keys = dict.fromkeys(key for one in used for key in one if key != "dataset.split")
    found = {key: [one[key] for one in used if key in one] for key in keys}
    return {key: values[0] for key, values in found.items() if all(value == values[0] for value in values)}


def _switched(switches: tuple[bool, ...]) -> Callable[[Values], Values | None]:
    def change(base: Values) -> Values | None:
        values = with_components(base, switches)
        return values if components(values) == switches else None  # where a single term's own switch says otherwise

    return change


def _set(key: str, value: int) -> Callable[[Values], Values]:
    return lambda base: {**base, key: value}


def _whole_method(values: Values) -> Values | None:
    return values if components(values) == _FULL else None


def _whole_method_with(key: str, value: int) -> Callable[[Values], Values | None]:
    return lambda values: {**values, key: value} if components(values) == _FULL else None


_STAGES = {f"stage{stage}": stage for stage in range(1, 5)}
_BLOCKS = {f"blocks{blocks}": blocks for blocks in range(1, 9)}

TABLES = {
    "table1": Table(
        "table1",
        "Table 1, the whole method",
        ("row",),
        _families(_whole_method, {"full": lambda base: base}, {"full": {"row": "full"}}),
        None,
        ("full",),
        ("dfe.stage", "dfe.blocks"),
    ),
    "table2": Table(
        "table2",
        "Table 2, components",
        COMPONENTS,
        _families(
            _switched(_FULL),
            {name: _switched(switches) for switches, name in VARIANTS.items()},
            {name: dict(zip(COMPONENTS, switches, strict=True)) for switches, name in VARIANTS.items()},
        ),
        "baseline",
        tuple(VARIANTS.values()),
        ("dfe.stage", "dfe.blocks"),
    ),
    "table3": Table(
        "table3",
        "Table 3, the stage of DFE",
        ("row",),
        _families(
            _whole_method_with("dfe.stage", 3),
            {row: _set("dfe.stage", stage) for row, stage in _STAGES.items()},
            {row: {"row": row} for row in _STAGES},
        ),
        "stage3",
        tuple(_STAGES),
        ("dfe.blocks",),
    ),
    "figure4": Table(
        "figure4",
        "Figure 4, the number of invertible blocks",
        ("row",),
        _families(
            _whole_method_with("dfe.blocks", 6),
            {row: _set("dfe.blocks", blocks) for row, blocks in _BLOCKS.items()},
            {row: {"row": row} for row in _BLOCKS},
        ),
        "blocks6",
        tuple(_BLOCKS),
        ("dfe.stage",),
    ),
}
"""The tables and the figure of the paper."""


def differing(common: Values, main: Values) -> str:
    """`schedule.epochs=5 (not 11), ...`: how what one family has in common differs from the main family."""
    keys = [key for key in sorted({*common, *main}) if common.get(key, _ABSENT) != main.get(key, _ABSENT)]
    return ", ".join(f"{key}={_shown(common, key)} (not {_shown(main, key)})" for key in keys)


_ABSENT = object()


def _shown(values: Values, key: str) -> str:
    return as_typed(values[key]) if key in values else "unused"


def as_typed(value: Any) -> str:
    """A value as the command line takes it: `true`, `null`, `[8,10]`, `0.1`."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
