"""What every command shares: composing its configuration, one-line errors, the jobs of a sweep, exit codes."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import BooleanNode, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bdlf import sweep_records
from bdlf.config import config_folder
from bdlf.errors import HeldError, InputError, StorageError
from bdlf.jobs import DONE, FAILED, INTERRUPTED, STOPPED, WRONG_INPUT, announce
from bdlf.shown import printable, shortened

_LONGEST = 1500  # letters of an error
_LONGEST_NAME = 200  # bytes of a file's name, which has 255; runs add to theirs
_FLAGS = ("-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version", "--resolve")
_FLAGS_WITH_VALUE = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-i", "--info", "-sc", "--shell-completion", "--experimental-rerun"),
)
"""Hydra's."""


def register(schema: type, name: str) -> None:
    """Make `schema` the typed root of `<name>.yaml`, and each file of `sweeps/` an option of `sweeps`."""
    store = ConfigStore.instance()
    store.store(name="schema" if name == "config" else f"{name}_schema", node=schema)
    for file in sorted(config_folder("sweeps").glob("*.yaml")):
        store.store(group="sweeps", name=file.stem, node=OmegaConf.load(file), package="_global_", provider=str(file))


def run_command(
    name: str,
    schema: type,
    task: Callable[[Any], int],
    about: str,
    *,
    folder: str = "",
    preload: Callable[[], object] | None = None,
) -> NoReturn:
    """Compose a configuration with the command line, call `task` for each job with an object of `schema`, and exit.

    The configuration is `conf/<folder>/<name>.yaml`. `about` is the command's module docstring: what it does, a blank
    line, examples; `--help` shows both. The jobs of a sweep run in processes of their own, started from one that has
    called `preload`; one that fails never stops the others, and a table says what became of each.
    """
    records: list[sweep_records.JobRecord] = []
    sweeps: set[Path] = set()  # where the records are
    codes: list[int] = []  # of a command that is no sweep
    call, home = sweep_records.new_call(), os.getpid()  # a launcher carries both to other processes, within `job`
    sys.argv[1:] = _in_order(sys.argv[1:])

    def job(composed: DictConfig) -> int:
        current = HydraConfig.get()
        if current.mode != RunMode.MULTIRUN:
            codes.append(_run_job(composed, schema, task))
            return codes[-1]
        if preload is not None and not records and sys.platform == "linux":  # forked with care elsewhere: from nothing
            preload()
        recorded = "sweep" in composed and not OmegaConf.select(composed, "dry_run", throw_on_resolution_failure=False)
        sweep = Path(current.sweep.dir) if recorded else None
        record = sweep_records.run_job(
            lambda: _run_job(composed, schema, task),
            current.job.num,
            current.overrides.task,
            call=call,
            sweep=sweep,
        )
        records.append(record)
        if sweep is not None:
            sweeps.add(sweep)
        elif os.getpid() != home and record.state not in ("finished", "skipped", "would run"):
            raise _JobElsewhereError(f"job {record.job} {record.state}: {record.reason}")
        if record.code in (INTERRUPTED, STOPPED) and record.state != "held":
            sys.exit(record.code)  # the rest of the sweep too
        return record.code or DONE

    register(schema, name)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through: they are put in one line below
    stopped, unexpected = DONE, None
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(_help(name, folder, about, [argument for argument in sys.argv[1:] if not argument.startswith("-")]))
            sys.exit(DONE)
        try:
            hydra.main(version_base="1.3", config_path=str(config_folder("conf") / folder), config_name=name)(job)()
        except SystemExit as left:
            if codes or not _is_sweep(sys.argv[1:]):
                raise
            stopped = left.code if isinstance(left.code, int) else FAILED
    except (HydraException, OmegaConfBaseException, OverflowError) as error:
        _print_error(explain(error, schema))
        sys.exit(WRONG_INPUT)
    except BrokenPipeError:  # `| head`
        os._exit(FAILED)
    except OSError as error:  # Hydra cannot write where a sweep's output goes
        _print_error(f"{_one_line(str(error))}; choose another output=")
        sys.exit(WRONG_INPUT)
    except _JobElsewhereError as error:
        _print_error(str(error))
        sys.exit(FAILED)
    except Exception as error:  # Hydra fails as it pleases on words that it did not expect
        if _asks_for_debug(sys.argv[1:]):
            raise
        unexpected = error
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    if codes:
        sys.exit(next((code for code in codes if code != DONE), DONE))
    if not records and _is_sweep(sys.argv[1:]):  # another launcher may have run the jobs in other processes
        try:
            place = _sweep_folder(name, folder, sys.argv[1:])
            records, sweeps = sweep_records.end_call(place, call), {place}
        except InputError as error:
            _print_error(f"the records of the jobs cannot be read: {error}")
            stopped = FAILED
    if unexpected is not None:
        _print_error(
            _of_words(unexpected, sys.argv[1:]) if not records else f"the launcher failed: {_named(unexpected)}"
        )
        stopped = FAILED if records else WRONG_INPUT
    if records:
        sweep_records.show(records, [place / "jobs.csv" for place in sorted(sweeps) if (place / "jobs.csv").is_file()])
    sys.exit(stopped or sweep_records.exit_code(records))


class _JobElsewhereError(Exception):
    """A job that another launcher ran in another process did not succeed, and no record says so."""


def _is_sweep(words: list[str]) -> bool:
    return any(re.match(r"(-m|--multirun)$|\+{0,2}(sweeps|hydra\.mode)=", word) for word in words)


def _sweep_folder(name: str, folder: str, words: list[str]) -> Path:
    """Where the jobs of the sweep that the command line asks for are recorded.

    Raises `InputError` where the sweep has several outputs.
    """
    named = [word for word in words if re.match(r"\+{0,2}(output|sweep|sweeps|hydra\.sweep\.dir)=", word)]
    try:
        with hydra.initialize_config_dir(str(config_folder("conf") / folder), version_base="1.3"):
            composed = hydra.compose(name, named, return_hydra_config=True)
        return Path(composed.hydra.sweep.dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{_one_line(str(error))}; give one output= and one sweep=") from error


def _asks_for_debug(words: list[str]) -> bool:
    """Whether the command line sets `debug` to what Hydra takes for true. It may be one that Hydra cannot compose."""
    asked = False
    for word in words:
        if re.match(r"\+{0,2}debug=", word):
            with contextlib.suppress(HydraException, OmegaConfBaseException):
                asked = BooleanNode(OverridesParser.create().parse_override(word).value())._value() is True
    return asked


def _run_job(composed: DictConfig, schema: type, task: Callable[[Any], int]) -> int:
    debug = False

    def say(reason: str, remedy: str = "") -> None:
        announce(reason=reason)
        _print_error(reason + remedy)

    try:
        debug = bool(composed.get("debug", False))  # may name what there is not, like every value
        extra = sorted(set(_leaf_keys(composed)) - set(_leaf_keys(OmegaConf.structured(schema))))
        if extra:  # +key=value passes Hydra
            raise InputError(unknown_key(extra[0], schema))
        _require_plain(composed)
        return task(OmegaConf.to_object(composed))
    except (InputError, OmegaConfBaseException) as error:
        if debug:
            raise
        say(_one_line(str(error)))
        if isinstance(error, HeldError):
            announce(state="held")
            return INTERRUPTED
        return FAILED if isinstance(error, StorageError) else WRONG_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise
    except Exception as error:
        if debug:
            raise
        say(f"{type(error).__name__}: {_one_line(str(error))}", " (debug=true shows where)")
        return FAILED


def _of_words(error: Exception, words: list[str]) -> str:
    """What to look at where Hydra itself fails."""
    if "Config group override must be a string" in str(error):
        numbers = [word for word in words if re.fullmatch(r"[\w/]+=[\d.]+", word) and "." not in word.split("=")[0]]
        return f"the options of a group are names, not numbers; look at {', '.join(numbers)}"
    return f"Hydra cannot read the options ({_named(error)}); they are {shortened(' '.join(words), 1000)}"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(_one_line(str(error)), 200)}"


def _print_error(line: str) -> None:
    print(f"error: {shortened(printable(line), _LONGEST)}", file=sys.stderr)


def _in_order(words: list[str]) -> list[str]:
    """Flags with their values first, where alone Hydra takes them. An unknown one is an error."""
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in (*_FLAGS, *_FLAGS_WITH_VALUE):
            key = word.lstrip("-").partition("=")[0]
            _print_error(f"unknown flag '{word}'; keys are given without dashes, like {key or 'seed'}=...; try --help")
            sys.exit(WRONG_INPUT)
    return sorted(words, key=lambda word: word not in _FLAGS and not (word.startswith("--") and "=" in word))


def _require_plain(composed: DictConfig) -> None:
    """Raise InputError for a value that no computer can count with, and for a text that no file can be named after."""
    for key in _leaf_keys(composed):
        value = OmegaConf.select(composed, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key}={value}: a finite number is needed")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InputError(f"{key}: {value.bit_length()} bits: a whole number below 2^63 is needed")
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise InputError(f"{key}={value!r}: text in UTF-8 and without NUL is needed")
        if isinstance(value, str) and max(len(part.encode()) for part in value.split("/")) > _LONGEST_NAME:
            raise InputError(f"{key}={value}: names of at most {_LONGEST_NAME} bytes are needed, as of files")


def _help(name: str, folder: str, about: str, overrides: list[str]) -> str:
    """Hydra's own help takes over 2 s with this many groups."""
    purpose, _, examples = about.strip().partition("\n\n")
    source = config_folder("conf") / folder
    with hydra.initialize_config_dir(str(source), version_base="1.3"):
        composed = hydra.compose(name, overrides)
    defaults = OmegaConf.load(source / f"{name}.yaml").defaults
    groups = [group for entry in defaults if OmegaConf.is_dict(entry) for group in entry if " " not in group]
    lines = [
        purpose,
        "",
        "Groups (group=option)",
        *(f"  {group}: {', '.join(_options(source, group))}" for group in groups),
    ]
    lines += ["", "Every key, and its value with these overrides (key=value)", OmegaConf.to_yaml(composed), examples]
    return "\n".join(lines)


def _options(source: Path, group: str) -> list[str]:
    folder = config_folder("sweeps") if group == "sweeps" else source / group
    return sorted(file.stem for file in folder.glob("*.yaml"))


def explain(error: Exception, schema: type) -> str:
    """Hydra's and OmegaConf's messages in one line, with the known names where a name is unknown."""
    text = str(error) + (f"\n{error.__cause__}" if error.__cause__ is not None else "")
    if (unknown := re.search(r"Could not override '([^']+)'", text)) and "not in" in text:
        return unknown_key(unknown.group(1), schema)
    if missing := re.search(r"Could not find '(.*)/([^/']*)'\s+Available options in '[^']+':\n((?:\t.+\n?)+)", text):
        return f"unknown option '{missing[2]}' of group '{missing[1]}'; known: {', '.join(missing[3].split())}"
    return _one_line(text)


def unknown_key(key: str, schema: type) -> str:
    """One line that names the key, the nearest known one, and those beside it."""
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
    hint = f"; did you mean '{close[0]}'" if close else ""
    return f"unknown key '{key}'{hint}" + (f"; known here: {', '.join(known)}" if known else "")


def _leaf_keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name in map(str, node):
        child = node._get_node(name)
        keys += _leaf_keys(child, f"{prefix}{name}.") if isinstance(child, DictConfig) else [f"{prefix}{name}"]
    return keys


def _one_line(text: str) -> str:
    """Lines joined; OmegaConf's `full_key: x` goes to the front, its `object_type` and Hydra's advice are dropped."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    kept = [
        line
        for line in lines
        if not line.startswith(("full_key: ", "object_type=", "reference_type=", "To append", "Error merging"))
    ]
    unique = list(dict.fromkeys(kept))
    return (f"{keys[0]}: " if keys else "") + "; ".join(unique)
