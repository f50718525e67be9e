"""Which epoch is reported, and how it was chosen."""

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
"""Every rule with what a reader must know of it."""
UNFINISHED = "unfinished "
"""Stands before the rule of a row that a run gave before its end."""


def selection_rules(selection: Any) -> tuple[str, ...]:
    """The rules of `selection`, a name or a list of names, in the order of RULES; the last epoch is always among them.

    Raises InputError for an unknown one.
    """
    names = [selection] if isinstance(selection, str) else selection
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(f"selection={selection}: a rule or a list of rules is needed: {', '.join(RULES)}")
    unknown = [name for name in names if name not in RULES]
    if unknown:
        raise InputError(f"selection='{unknown[0]}' is not known; known: {', '.join(RULES)}")
    return tuple(rule for rule in RULES if rule == LAST or rule in names)


def criterion(values: Mapping[str, Any], columns: Sequence[str]) -> float:
    """The mean of rank-1 over the protocols in `columns`; -inf for an epoch that was not scored."""
    scores = [float(values[column]) for column in columns if values.get(column) not in (None, "")]
    return sum(scores) / len(columns) if len(scores) == len(columns) else -math.inf
