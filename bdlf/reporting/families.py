"""Decides which configurations a table asks for. The runs of a row are those whose configuration has the row's hash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bdlf.active import COMPONENTS, components, in_use, with_components
from bdlf.reporting.composed import SHARED, method_names, origin, with_method, with_usual_method
from bdlf.runs.identity import values_hash

Values = Mapping[str, Any]
"""A flat configuration."""

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
"""The rows of Table 2, by which of `bdlf.active.COMPONENTS` are on."""
_FULL = (True, True, True, True)


@dataclass(frozen=True)
class Asked:
    """A row that a table asks for."""

    group: str
    """The hash of the row's configuration without seed and split; the tidy frame has it in the column `group`."""
    values: dict[str, Any]
    """The row's flat configuration."""
    marks: dict[str, Any]
    """What the row has in the table's key columns."""
    alias: str = ""
    """Another name of a row of a by= table, with the values of all keys, also of those that the run does not use."""


@dataclass(frozen=True)
class Family:
    """Rows of one table whose configurations agree in every key that the table does not vary."""

    rows: dict[str, Asked]
    """The rows by their names."""
    common: dict[str, Any]
    """The keys that have one value in all rows which use them, with this value."""
    recipe: str = SHARED
    """The value of `recipe` of all rows; the table of all methods has blocks of its own for each."""
    title: str = ""
    """The title of the family's blocks, if it is not the table's."""


@dataclass(frozen=True)
class Table:
    """A kind of table: which keys of a configuration it varies, and how."""

    name: str
    title: str
    keys: tuple[str, ...]
    """The names of the key columns."""
    families: Callable[[Iterable[Values]], list[Family]]
    """Gives the families that the configurations belong to, in the order in which they are found."""
    reference: str | None
    """The row that the others are compared with; '' for the first row, None if the table compares nothing."""
    names: tuple[str, ...] = ()
    """The names of the rows, if they are known before there are runs."""
    fixed: tuple[str, ...] = ()
    """Keys that have the same value in all rows of the paper's table: 3 for `dfe.stage`, 6 for `dfe.blocks`."""
    gaps: bool = True
    """Whether the table shows rows that have no run."""


def _families(
    base_of: Callable[[Values], Values | None], rows: Mapping[str, Callable[[Values], Values | None]], marks: Mapping
) -> Callable[[Iterable[Values]], list[Family]]:
    """The function `families` of a table.

    `base_of` turns the configuration of a run into the configuration that all rows of its family are made from, or into
    None if the run belongs to no family. `rows` makes the configuration of each row from this base; None leaves the row
    out. `marks` holds what each row has in the key columns.
    """

    def find(configurations: Iterable[Values]) -> list[Family]:
        found: dict[str, Family] = {}
        for values in configurations:
            base = base_of(values)
            if base is None:
                continue
            key = values_hash(base, without_split=True)
            if key in found:
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
    """The keys that have one value in all configurations which use them, with this value.

    RegDB's split is not among them, because it numbers repetitions as the seed does.
    """
    used = [in_use(values) for values in configurations]
    keys = dict.fromkeys(key for one in used for key in one if key != "dataset.split")
    found = {key: [one[key] for one in used if key in one] for key in keys}
    return {key: values[0] for key, values in found.items() if all(value == values[0] for value in values)}


def _switched(switches: tuple[bool, ...]) -> Callable[[Values], Values | None]:
    def change(base: Values) -> Values | None:
        values = with_components(base, switches)
        return values if components(values) == switches else None  # a term's own switch may prevent what is asked

    return change


def _set(key: str, value: int) -> Callable[[Values], Values]:
    return lambda base: {**base, key: value}


def _whole_method(values: Values) -> Values | None:
    return values if components(values) == _FULL else None


def _whole_method_with(key: str, value: int) -> Callable[[Values], Values | None]:
    return lambda values: {**values, key: value} if components(values) == _FULL else None


def _every_method(configurations: Iterable[Values]) -> list[Family]:
    """A row for each method with its usual network and loss, in the recipe and with the images of the runs."""
    found: dict[tuple[str, ...], Family] = {}
    names = method_names()
    for values in configurations:
        if values["method.name"] not in names:  # the run of a method that is not there any more
            continue
        base, (_, _, recipe) = with_usual_method(values), origin(values)
        rows = {name: with_method(base, name) for name in names}
        members = {
            name: Asked(values_hash(one, without_split=True), one, {"method": name}) for name, one in rows.items()
        }
        key = (recipe, *(one.group for one in members.values()))
        if key not in found:
            title = "" if recipe == SHARED else "Table 1, here, each method with its own recipe"
            found[key] = Family(members, in_common(list(rows.values())), recipe, title)
    return list(found.values())


_STAGES = {f"stage{stage}": stage for stage in range(1, 5)}
_BLOCKS = {f"blocks{blocks}": blocks for blocks in range(1, 9)}

ROOF = "roof"
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
    ROOF: Table(ROOF, "Table 1, here, one recipe", ("method",), _every_method, "", method_names()),
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
"""The tables and the figure of the paper, and Table 1 with the methods as they are trained here."""


def differing(common: Values, main: Values) -> str:
    """How the `common` of one family differs from that of the `main` one, as in `schedule.epochs=5 (not 11), ...`."""
    keys = [key for key in sorted({*common, *main}) if common.get(key, _ABSENT) != main.get(key, _ABSENT)]
    return ", ".join(f"{key}={_shown(common, key)} (not {_shown(main, key)})" for key in keys)


_ABSENT = object()


def _shown(values: Values, key: str) -> str:
    return as_typed(values[key]) if key in values else "unused"


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line: `true`, `null`, `[8,10]`, `0.1`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, float) and float(f"{value:g}") == value:  # `1` for 1.0, but no digit is lost
        return f"{value:g}"
    return str(value)
