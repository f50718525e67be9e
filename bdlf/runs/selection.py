"""The rules that choose which epoch of a run is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bdlf.system.errors import InputError

LAST, VALIDATION, BEST_ON_TEST = "last_epoch", "validation", "best_on_test"
RULES = {
    LAST: "the last epoch",
    VALIDATION: "the epoch that identities held out of training choose",
    BEST_ON_TEST: "CHOSEN ON THE TEST SET: too high, not comparable with the other rules",
}
"""Every rule, with the words that tell a reader how it chooses the epoch."""
UNFINISHED = "unfinished "
"""Stands before the rule in a row that was scored before the run had trained all its epochs."""


def selection_rules(selection: Any) -> tuple[str, ...]:
    """The rules that `selection` (a name or a list of names) asks for, in the order of RULES.

    The last epoch is always among them. Raises InputError for an unknown name.
    """
    names = [selection] if isinstance(selection, str) else selection
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(f"selection={selection}: a rule or a list of rules is needed: {', '.join(RULES)}")
    unknown = [name for name in names if name not in RULES]
    if unknown:
        raise InputError(f"selection='{unknown[0]}' is not known; known: {', '.join(RULES)}")
    return tuple(rule for rule in RULES if rule == LAST or rule in names)


def criterion(values: Mapping[str, Any], columns: Sequence[str]) -> float:
    """How good an epoch is: the mean of rank-1 over `columns`, one for each protocol, in percent.

    `values` is the epoch's row of metrics.csv. The result is -inf if one of the columns is empty, because the epoch was
    then not scored.
    """
    scores = [float(values[column]) for column in columns if values.get(column) not in (None, "")]
    if len(scores) < len(columns):
        return -math.inf
    return sum(scores) / len(columns)
