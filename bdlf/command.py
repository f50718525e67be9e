"""What every command shares: composing its configuration, one-line errors, exit codes.

Exit codes: 0 done, 1 failed, 2 wrong option or input, 75 interrupted and resumable, 130 stopped at once.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bdlf.config import config_folder
from bdlf.errors import InputError

DONE, FAILED, WRONG_INPUT, INTERRUPTED, STOPPED = 0, 1, 2, 75, 130


class SweepFiles(SearchPathPlugin):
    """Makes the files of `sweeps/` options of the group `sweeps`, from any directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="bdlf", path=f"file://{config_folder('sweeps').parent}")


def register(schema: type, name: str) -> None:
    """Make the schema the typed root of `conf/<name>.yaml`, and `sweeps/` a group; also before `hydra.compose`."""
    ConfigStore.instance().store(name="schema" if name == "config" else f"{name}_schema", node=schema)
    Plugins.instance().register(SweepFiles)


def run_command(name: str, schema: type, task: Callable[[Any], int]) -> NoReturn:
    """Compose `conf/<name>.yaml` with the command line, call `task` for each job with an object of `schema`, and exit.

    A job that fails never stops the other jobs of a sweep; the exit code is the first job's that is not 0.
    """
    codes: list[int] = []

    def job(composed: DictConfig) -> int:
        codes.append(_run_job(composed, task))
        return codes[-1]

    register(schema, name)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through: they are put in one line below
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder("conf")), config_name=name)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, schema)}", file=sys.stderr)
        sys.exit(WRONG_INPUT)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    sys.exit(next((code for code in codes if code != DONE), DONE))


def _run_job(composed: DictConfig, task: Callable[[Any], int]) -> int:
    debug = bool(composed.get("debug", False))
    try:
        return task(OmegaConf.to_object(composed))
    except (InputError, OmegaConfBaseException) as error:
        if debug:
            raise
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise
    except Exception as error:
        if debug:
            raise
        print(f"error: {type(error).__name__}: {_one_line(str(error))} (debug=true shows where)", file=sys.stderr)
        return FAILED


def explain(error: Exception, schema: type) -> str:
    """Hydra's and OmegaConf's messages in one line, with the known keys where a key is unknown."""
    text = str(error) + (f"\n{error.__cause__}" if error.__cause__ is not None else "")
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and "not in" in text:
        return _unknown_key(unknown.group(1), schema)
    return _one_line(text)


def _unknown_key(key: str, schema: type) -> str:
    node: Any = OmegaConf.structured(schema)
    known_path: list[str] = []
    for part in key.split("."):
        if not (OmegaConf.is_config(node) and part in node):
            break
        known_path.append(part)
        node = node._get_node(part)
    known = [".".join([*known_path, str(k)]) for k in node] if OmegaConf.is_dict(node) else []
    everything = _leaf_keys(OmegaConf.structured(schema))
    close = difflib.get_close_matches(key, [*everything, *known], n=1, cutoff=0.6)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown key '{key}'{hint}" + (f" Known here: {', '.join(known)}" if known else "")


def _leaf_keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name in node:
        child = node._get_node(name)
        keys += _leaf_keys(child, f"{prefix}{name}.") if OmegaConf.is_dict(child) else [f"{prefix}{name}"]
    return keys


def _one_line(text: str) -> str:
    """Lines joined; OmegaConf's `full_key: x` goes to the front, its `object_type` and Hydra's advice are dropped."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    kept = [line for line in lines if not line.startswith(("full_key: ", "object_type=", "reference_type=", "To append"))]
    unique = list(dict.fromkeys(kept))
    return (f"{keys[0]}: " if keys else "") + "; ".join(unique)
