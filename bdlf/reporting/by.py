"""The ablation table over any keys of the configuration: `python -m bdlf.report DIR by=optimizer.lr,loss.skd.weight`.

A run is found by the hash of its configuration, so this table asks for the configurations that differ from those of
the runs only in the keys. Runs that are equal in every other key that is in use form a family, which becomes a block.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from bdlf.active import LOSS_GROUPS, active_weights, can_decide, components, flat, in_use, method_name, with_components
from bdlf.config import Config
from bdlf.reporting.composed import own_values, with_method
from bdlf.reporting.families import Asked, Family, Table, Values, as_typed, in_common
from bdlf.runs.identity import values_hash
from bdlf.system.errors import InputError

METHOD = "method.name"
"""A key whose rows have, in all other keys, what `method=` gives them."""
VARIANT = "variant"
"""A key that stands for the components of Table 2. Its values are the names of the table's rows, not labels of runs."""
_MOST_QUESTIONS = 50_000  # one table computes at most about so many hashes of configurations, each in about 0.1 ms


def by_table(keys: Sequence[str], reference: str | None) -> Table:
    """The table that has a row for each combination of values of `keys`.

    The rows of a block agree in every other key that is in use. A key that a run does not use is shown as "-", and as
    "unused" in the name of the row. `reference` names the row that the others are compared with, by its values in the
    order of `keys` with commas between them; None stands for the first row.

    Raises InputError for a key that does not exist, that never decides the weights of a run, or that is given twice.
    """
    _check(keys)

    def families(configurations: Iterable[Values]) -> list[Family]:
        return _families(keys, list(configurations))

    name = ",".join(map(_as_row, reference.split(","))) if reference else ""
    return Table("by", f"By {', '.join(keys)}", tuple(keys), families, name, gaps=False)


def _as_row(text: str) -> str:
    """A value, typed by the user, as it stands in the name of a row: `1.0` becomes `1`, `True` becomes `true`."""
    text = text.strip()
    if text == "-":
        return "unused"
    try:
        return as_typed(float(text))
    except ValueError:
        return text.lower() if text.lower() in ("true", "false", "null") else text


def _check(keys: Sequence[str]) -> None:
    known = [*(key for key in flat(Config()) if can_decide(key)), VARIANT]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"by={','.join(keys)} names {key} twice; name each key once")
        if key in known:
            continue
        if key == "seed" or key == "dataset.split":
            raise InputError(f"by={key}: a row is the mean over its runs' {key}; frame=true gives a line for each run")
        if key.startswith("evaluation."):
            raise InputError(f"by={key}: this key says how a run is scored, and each scoring has a block of its own")
        if key in flat(Config()):
            raise InputError(
                f"by={key}: this key does not decide what a run learns; give one that does, like optimizer.lr"
            )
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        below = [one for one in known if one.startswith(f"{key}.")]
        hint = f"; did you mean '{close[0]}'" if close else ""
        raise InputError(f"by={key}: no such key{hint}" + (f"; known below {key}: {', '.join(below)}" if below else ""))


def _families(keys: Sequence[str], configurations: Sequence[Values]) -> list[Family]:
    present = {values_hash(values, without_split=True) for values in configurations}
    bases: dict[tuple, Values] = {}  # from the values of all other keys to a configuration that has them
    own: dict[tuple, list[tuple]] = {}  # from the same to the values of `keys` that runs have beside them
    for values in configurations:
        others = own_values(values) if METHOD in keys else values  # what a method brings with it follows its name
        rest = tuple((key, str(value)) for key, value in others.items() if can_decide(key) and _is_fixed(key, keys))
        bases.setdefault(rest, values)
        own.setdefault(rest, []).append(_choice(values, keys))
    every = {choice for choices in own.values() for choice in choices}
    ask_all = len(bases) * len(every) * 2 ** len(keys) <= _MOST_QUESTIONS
    found = []
    for rest, base in bases.items():
        choices = _with_off(keys, every if ask_all else {*own[rest]})
        family = _family(keys, base, choices, present)
        if family is not None:
            found.append(family)
    return found


def _is_fixed(key: str, keys: Sequence[str]) -> bool:
    """Whether the rows of a block must agree in this key."""
    switched = ("dfe.enabled", "loss.app.enabled", "loss.orth.enabled", "loss.skd.enabled") if VARIANT in keys else ()
    return key not in keys and key not in switched and key != "dataset.split"


def _choice(values: Values, keys: Sequence[str]) -> tuple:
    """The values of the keys in a configuration, as a tuple that can be a dictionary's key."""

    def one(key: str) -> Any:
        if key == VARIANT:
            return components(values)
        return tuple(values[key]) if isinstance(values[key], list) else values[key]

    return tuple(map(one, keys))


def _with_off(keys: Sequence[str], choices: Collection[tuple]) -> list[tuple]:
    """The choices, and what they become when terms are switched off, in order.

    A term can be switched off by its own switch or by a weight of 0. Both give the same run, which may be recorded
    with either.
    """
    options = [[[value, *_off(key)] for key, value in zip(keys, choice, strict=True)] for choice in choices]
    return _ordered({one for option in options for one in product(*option)})


def _off(key: str) -> list[Any]:
    """Values of a key that may switch a term off, or on again."""
    if key.startswith("loss.") and key.endswith(".weight"):
        return [0.0]
    return [False, True] if key.endswith(".enabled") else []


def _ordered(choices: Collection[tuple]) -> list[tuple]:
    """The choices in ascending order. Within a key, None comes first, then numbers, then lists, then words."""

    def place(value: Any) -> tuple:
        if value is None:
            return (0, 0.0)
        if isinstance(value, int | float):
            return (1, float(value))
        if isinstance(value, tuple):
            return (2, tuple(map(place, value)))
        return (3, str(value))

    return sorted(choices, key=lambda choice: tuple(map(place, choice)))


def _family(keys: Sequence[str], base: Values, choices: Sequence[tuple], present: set[str]) -> Family | None:
    rows: dict[str, Asked] = {}
    seen: set[str] = set()
    for choice in choices:
        values = _changed(base, keys, choice)
        group = values_hash(values, without_split=True)
        if group not in present or group in seen:
            continue
        seen.add(group)
        marks = {key: _mark(values, key) for key in keys}
        name = ",".join("unused" if mark == "-" else mark for mark in marks.values())
        alias = ",".join(marks[key] if key == VARIANT else as_typed(values[key]) for key in keys)
        if name in rows:  # another row differs from this one only in a value that the name does not show
            name += f" ({group})"
        rows[name] = Asked(group, values, marks, alias)
    return Family(rows, in_common([row.values for row in rows.values()])) if rows else None


def _changed(base: Values, keys: Sequence[str], choice: tuple) -> dict[str, Any]:
    chosen = dict(zip(keys, choice, strict=True))
    values = with_method(base, chosen.pop(METHOD)) if METHOD in chosen else dict(base)
    for key, value in chosen.items():
        if key == VARIANT:
            values = with_components(values, value)
        else:
            values[key] = list(value) if isinstance(value, tuple) else value
    return values


def _mark(values: Mapping[str, Any], key: str) -> str:
    """The value of a key as it is typed on the command line, or "-" if the run does not use it."""
    if key == VARIANT:
        return method_name(values)
    if key == "selection":  # only the rule that holds out identities decides the weights
        return "validation" if "selection.validation" in in_use(values) else "-"
    if key == "dfe.enabled":
        return "on" if components(values)[0] else "off"
    if key.startswith("loss.") and key.endswith(".enabled"):
        name = key.split(".")[1]
        on = not set(LOSS_GROUPS.get(name, (name,))).isdisjoint(active_weights(values))
        return "on" if on else "off"
    used = in_use(values)
    return as_typed(used[key]) if key in used else "-"
