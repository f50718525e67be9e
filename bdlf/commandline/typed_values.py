"""Keeps text as the user typed it: without this, Hydra would read the text `label=3e563` as a number."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, StringNode

from bdlf.config import schema_tree


def keep_typed(words: Iterable[str], schema: type) -> list[str]:
    """`words` with quotes around values that are text by the schema but that Hydra would read as a number or a boolean.

    `label=7e5` becomes `label='7e5'`, and `label=true,x` becomes `label='true',x`. `null` still means null. A value
    that contains quotes, brackets or an interpolation is not changed.
    """
    texts = _text_keys(schema_tree(schema))
    return [_kept(word, texts) for word in words]


def _text_keys(node: DictConfig, prefix: str = "") -> set[str]:
    keys = set()
    for name in map(str, node):
        child = node._get_node(name)
        if isinstance(child, DictConfig):
            keys |= _text_keys(child, f"{prefix}{name}.")
        elif isinstance(child, StringNode):
            keys.add(prefix + name)
    return keys


def _kept(word: str, texts: set[str]) -> str:
    named = re.fullmatch(r"(\+{0,2}([\w.]+)=)(choice\()?([^\[\]{}()'\"\\$]*)(\))?", word)
    if named is None or named[2] not in texts:
        return word
    values = named[4].split(",")
    kept = [f"'{value.strip()}'" if _is_no_text(value) else value for value in values]
    return f"{named[1]}{named[3] or ''}{','.join(kept)}{named[5] or ''}"


def _is_no_text(value: str) -> bool:
    """Whether Hydra would read `value` as a number or a boolean."""
    try:
        return isinstance(OverridesParser.create().parse_override(f"key={value.strip()}").value(), int | float)
    except HydraException:  # Hydra reports it when it reads the whole command line
        return False
