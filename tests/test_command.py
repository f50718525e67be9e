"""The command line: what every command understands, and which keys its messages name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import bdlf
from bdlf.command import _leaf_keys
from bdlf.config import BenchmarkConfig, CheckConfig, Config, EvaluateConfig, SynthesizeConfig
from bdlf.errors import InputError

SCHEMAS = [OmegaConf.structured(s) for s in (Config, EvaluateConfig, CheckConfig, SynthesizeConfig, BenchmarkConfig)]
SOURCES = sorted(Path(bdlf.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("word", ["debug=true", "debug=True", "debug=TRUE", "debug=1", "debug=on", "debug=yes"])
@pytest.mark.parametrize("plus", ["", "++"])
def test_debug_shows_the_traceback_however_true_is_written(command, plus, word):
    with pytest.raises(InputError, match="no-such-layout"):  # of the task
        command("synthesize", "layout=no-such-layout", "root=nowhere", plus + word)
    with pytest.raises(
        ValueError, match="group override must be a string"
    ):  # of Hydra, before there is a configuration
        command("train", "dfe/stage=3", plus + word)


@pytest.mark.parametrize(
    "word", ["debug=false", "debug=0", "debug=off", "seed=1", "label=debug=true", "debug=false,true"]
)
def test_without_debug_an_error_is_one_line(command, word):
    code, out, err = command("train", "dfe/stage=3", word)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and not out


def test_a_debug_that_hydra_refuses_is_one_line_too(command):
    code, _, err = command("train", "+debug=true")
    assert code == 2 and err.startswith("error: Could not append to config") and err.count("\n") == 1


def known_keys() -> set[str]:
    """Every key of every schema with a dot in it, groups of keys included."""
    leaves = {key for schema in SCHEMAS for key in _leaf_keys(schema)}
    paths = [key.split(".") for key in leaves]
    return {".".join(path[:end]) for path in paths for end in range(2, len(path) + 1)}


def unknown_keys(source: str) -> list[str]:
    """Words of the string literals of `source` that look like a key of a group, `group.name`, and are none.

    A call (`loss.backward()`) and a part of a longer path (`bdlf.data.sysu`, `conf/loss.yaml`) do not look like one.
    """
    groups = {name for schema in SCHEMAS for name in schema if isinstance(schema._get_node(name), DictConfig)}
    key = re.compile(rf"(?<![\w./-])(?:{'|'.join(sorted(groups))})(?:\.[a-z]\w*)+(?![\w(/])")
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    words = {word for text in texts if isinstance(text, str) for word in key.findall(text)}
    return sorted(words - known_keys())


def test_every_key_that_a_message_names_exists():
    found = {str(path): unknown for path in SOURCES if (unknown := unknown_keys(path.read_text()))}
    assert not found
    text = "".join(path.read_text() for path in SOURCES)
    assert len([key for key in known_keys() if key in text]) > 30, "keys are named, so that the test looks at some"


def test_the_search_for_unknown_keys_finds_them():
    source = '''
raise InputError(f"backbone.gem_p={p} is not in 1..6, see loss.skd.weight, {dfe.nothing} and dataset.nmae.")
"""Not loss.backward(), bdlf.data.sysu.py, conf/loss.app.yaml or model.dfe.x. But evaluation.flip: evaluation.filp."""
'''
    assert unknown_keys(source) == ["backbone.gem_p", "dataset.nmae", "evaluation.filp"]
