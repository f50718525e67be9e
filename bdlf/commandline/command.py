"""What every command does: compose its configuration, run its jobs, print one line per error, choose the exit code."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bdlf.commandline import saved_run, sweep_records, sweep_start
from bdlf.commandline.help import help_text
from bdlf.commandline.jobs import DONE, FAILED, INTERRUPTED, STOPPED, WRONG_INPUT, announce, hand_to_launcher
from bdlf.commandline.refused_words import refuse_hidden_configuration, refuse_sweep_over, refuse_without_effect
from bdlf.commandline.sweep_start import SweepCall
from bdlf.commandline.sweep_stop import SweepStop, go_on_apart, signals_asked
from bdlf.commandline.typed_values import keep_typed
from bdlf.commandline.words import (
    asks_for_debug,
    explain,
    in_order,
    leaf_keys,
    named,
    of_words,
    one_line,
    paths_from_home,
    print_error,
    require_working_directory,
    unknown_key,
    with_screen,
)
from bdlf.config import config_folder, schema_tree
from bdlf.system import processes
from bdlf.system.errors import HeldError, InputError, StorageError
from bdlf.system.screen import keep_going
from bdlf.system.screen_table import print_line

_LONGEST_NAME = 200  # bytes; a file's name may have 255, and runs add suffixes to the names that are given
_EXPLAINED = (HydraException, OmegaConfBaseException, OverflowError, OSError, sweep_start.JobFailedError)
"""Errors whose message says enough: debug=true shows no traceback of them."""


def run_command(
    name: str,
    schema: type,
    task: Callable[[Any], int],
    about: str,
    *,
    folder: str = "",
    preload: Callable[[], object] | None = None,
) -> NoReturn:
    """Compose the configuration of a command, call `task` with it for each job, and exit the process.

    - `name`, `folder`: the configuration is `conf/<folder>/<name>.yaml`, changed by the words of the command line.
    - `schema`: the dataclass that lists all keys; `task` gets an object of it and returns an exit code.
    - `about`: the command's module docstring, which `--help` prints: a purpose, a blank line, examples.
    - `preload`: imports what every job needs. A sweep calls it once, before it forks its first job.

    Each job of a sweep runs in a process of its own, so a job that fails never stops the others. At the end a table
    says what became of every job. Bad input ends the command with one line on standard error.
    """
    keep_going()
    require_working_directory()
    sys.argv[1:] = in_order(sys.argv[1:], name, schema)
    debug = os.environ.get("HYDRA_FULL_ERROR") == "1" or asks_for_debug(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and this function prints each in one line
    call = _Call(name, schema, task, folder, preload, debug)
    code, unexpected = DONE, None  # how Hydra ended: its exit code, or the error that nobody expected
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_text(name, folder, about, sys.argv[1:]))
            sys.exit(with_screen(DONE))
        code = call.run()
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:
        if debug and not isinstance(error, _EXPLAINED):
            raise
        known = _print_reason(error, schema)
        code, unexpected = (DONE, error) if known is None else (known, None)
    if call.codes:
        sys.exit(with_screen(next((one for one in call.codes if one != DONE), code)))
    sys.exit(with_screen(call.end(code, unexpected)))


def _print_reason(error: Exception, schema: type) -> int | None:
    """Print why Hydra stopped and return the exit code. Print nothing and return None for an unexpected error."""
    if isinstance(error, InputError):
        print_error(str(error))
        return WRONG_INPUT
    if isinstance(error, HydraException | OmegaConfBaseException | OverflowError):
        print_error(explain(error, schema))
        return WRONG_INPUT
    if isinstance(error, OSError):  # Hydra cannot write into the folder of the sweep
        print_error(f"{one_line(str(error))}; choose another output=")
        return WRONG_INPUT
    if isinstance(error, sweep_start.JobFailedError):  # too many trials of an optimising sweeper failed
        print_error(f"the sweeper ended the sweep after {error}; hydra.sweeper.max_failure_rate=1 lets Optuna go on")
        return FAILED
    return None


@dataclass
class _Call:
    """One call of a command and what has become of its jobs. A launcher may pickle it into other processes."""

    name: str
    schema: type
    task: Callable[[Any], int]
    folder: str
    preload: Callable[[], object] | None
    debug: bool
    sweep: SweepCall = field(default_factory=SweepCall)
    records: list[sweep_records.JobRecord] = field(default_factory=list)
    """Of the jobs of a sweep that this process started."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of the jobs where the command is no sweep: at most one."""
    stop: SweepStop | None = None
    """What a signal does; only in the process that started the sweep, and only where the jobs have others."""

    def run(self) -> int:
        """Let Hydra compose the configuration and start the jobs. Returns the exit code that a launcher asks for."""
        try:
            processes.require_one_process()
            processes.prepare_threads()
            primary = _prepare(self.name, self.folder, self.schema)
            folder = str(config_folder("conf") / self.folder)
            with ExitStack() as around, sweep_start.listening(lambda composed: self.begin_sweep(composed, around)):
                hydra.main(version_base="1.3", config_path=folder, config_name=primary)(self.job)()
        except SystemExit as left:
            if self.sweep.folder is None:
                raise
            return left.code if isinstance(left.code, int) else FAILED
        except Exception:
            if not self.is_stopped():
                raise
        return self.stop.code if self.stop is not None and self.is_stopped() else DONE

    def is_stopped(self) -> bool:
        """Whether a signal has stopped the sweep. Launchers may raise any error then."""
        return self.stop is not None and bool(self.stop.received)

    def __getstate__(self) -> dict[str, Any]:
        """For a launcher, which pickles this object into other processes."""
        return self.__dict__ | {"stop": None}

    def begin_sweep(self, composed: DictConfig, around: ExitStack) -> None:
        """Check the words of a sweep, share the cores among its jobs and fix where its records go.

        From here on until `around` closes, a signal stops the jobs that a launcher has started in other processes.
        """
        try:
            given = sweep_start.swept_words(composed)
            refuse_sweep_over(given)
            refuse_without_effect(given, self.name, self.folder)
        except InputError as error:
            print_error(str(error))
            sys.exit(WRONG_INPUT)
        sweep_start.set_parameters(composed, lambda words: keep_typed(words, self.schema))
        processes.share_cores(composed)
        self.sweep.begin(composed)
        if self.sweep.watched and self.sweep.folder is not None:
            go_on_apart()
            sweep = (self.sweep.folder, self.sweep.name)
            self.stop = SweepStop(*sweep, still_running=partial(sweep_records.still_running, *sweep))
            around.enter_context(self.stop.listening())

    def job(self, composed: DictConfig) -> float | None:
        """Run one job, in a process of its own if it belongs to a sweep. Returns the figure that a sweeper optimises.

        Where the job was interrupted, the process that runs the sweep exits, so that no later job starts. A process
        that a launcher has started returns, because joblib would kill its other jobs if one raised SystemExit.
        """
        name, folder, watched = self.sweep.name, self.sweep.folder, self.sweep.watched
        elsewhere = watched and self.stop is None  # a launcher has started this process
        current = HydraConfig.get()
        os.chdir(current.runtime.cwd)  # hydra.job.chdir=true has changed it

        def work() -> int:
            primary = current.job.config_name
            return _run_job(composed, self.schema, self.task, primary=primary, debug=self.debug)

        if current.mode != RunMode.MULTIRUN:
            self.codes.append(work())
            return None
        if elsewhere and folder is not None and signals_asked(folder, name):
            raise sweep_start.JobFailedError(f"job {current.job.num} did not begin: the sweep was stopped")
        if self.preload is not None and not self.records and sys.platform == "linux":
            self.preload()  # elsewhere libraries may not survive a fork: each job imports for itself
        words = current.overrides.task
        record = sweep_records.run_job(work, current.job.num, words, call=name, sweep=folder, watched=watched)
        self.records.append(record)
        if record.code in (INTERRUPTED, STOPPED) and record.state != "held":
            hand_to_launcher()
            if not elsewhere:
                sys.exit(record.code)
        return sweep_start.figure(record)

    def end(self, code: int, unexpected: Exception | None) -> int:
        """Read the records of all jobs and print them as a table. Returns the exit code of the command.

        `code` and `unexpected` say how Hydra ended: with which exit code, or with which error nobody expected.
        """
        records = self.records
        if self.sweep.folder is not None:
            try:
                records = sweep_records.end_call(
                    self.sweep.folder, self.sweep.name, records, kept=self.sweep.kept, interrupted=self.is_stopped()
                )
            except InputError as error:
                print_error(f"the records of the jobs cannot be read: {error}")
                code = FAILED
            if not records and code == DONE and unexpected is None:
                print_error(f"no job has left a record in {self.sweep.folder}")
                code = FAILED
        if unexpected is not None and records:
            print_error(f"the launcher failed: {named(unexpected)}")
            code = FAILED
        elif unexpected is not None:
            print_error(of_words(unexpected, sys.argv[1:]))
            code = WRONG_INPUT
        if records:
            table = None if self.sweep.folder is None else self.sweep.folder / "jobs.csv"
            sweep_records.show(records, [table] if table is not None and table.is_file() else [])
        if self.stop is not None and self.stop.received:
            print_line(f"stopped by {self.stop.received[-1].name}: the same command goes on (without rerun=true)")
        return code or sweep_records.exit_code(records)


def _prepare(name: str, folder: str, schema: type) -> str:
    """Check and quote the words of the command line for Hydra. Returns the name of the configuration to start from.

    Raises `InputError` for words that would change nothing, and for a `from_run=` that names no run folder.
    """
    words = sys.argv[1:]
    from_run = hasattr(schema, "from_run")
    refuse_hidden_configuration(words, name, has_from_run=from_run)
    refuse_without_effect(words, name, folder)
    sys.argv[1:] = keep_typed(words, schema)
    saved = saved_run.folder_of(sys.argv[1:]) if from_run else None
    refuse_sweep_over(words)  # before Hydra recommends -m, which would be refused
    if saved is None:
        return name
    saved_run.require_choices(sys.argv[1:])
    saved_run.store(saved)
    return saved_run.PRIMARY


def _run_job(
    composed: DictConfig, schema: type, task: Callable[[Any], int], *, primary: str | None = None, debug: bool = False
) -> int:
    """Call `task` with the composed configuration as an object of `schema`, and return the exit code of the job.

    `primary` names the configuration that Hydra started from, or is None where something else composed it. With
    `debug` errors are raised; without it they are printed in one line each.
    """
    keep_going()  # a launcher may run this job in a process that has not called it yet

    def say(reason: str, remedy: str = "") -> None:
        announce(reason=reason)
        print_error(reason + remedy)

    try:
        debug = debug or bool(composed.get("debug", False))  # raises where debug=${...} cannot be resolved
        extra = sorted(set(leaf_keys(composed)) - set(leaf_keys(schema_tree(schema))))
        if extra:  # Hydra accepts any +key=value
            raise InputError(unknown_key(extra[0], schema))
        if primary is not None:
            saved_run.check_start(composed, primary)
        _require_plain(composed)
        paths_from_home(composed)
        return task(OmegaConf.to_object(composed))
    except (InputError, OmegaConfBaseException) as error:
        if debug:
            raise
        say(one_line(str(error)))
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
        say(f"{type(error).__name__}: {one_line(str(error))}", " (debug=true shows where)")
        return FAILED


def _require_plain(composed: DictConfig) -> None:
    """Raise `InputError` for NaN, infinity, integers beyond 64 bits, and texts that cannot be part of a file name."""
    for key in leaf_keys(composed):
        value = OmegaConf.select(composed, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key}={value}: a finite number is needed")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InputError(f"{key}: {value.bit_length()} bits: a whole number below 2^63 is needed")
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            is_utf8 = "\0" in value or sys.getfilesystemencoding() == "utf-8"
            locale = "" if is_utf8 else "; with LC_ALL=C.UTF-8 or PYTHONUTF8=1, Python reads the words as UTF-8"
            raise InputError(f"{key}={value!r}: text in UTF-8 and without NUL is needed{locale}")
        if isinstance(value, str) and max(len(part.encode()) for part in value.split("/")) > _LONGEST_NAME:
            raise InputError(f"{key}={value}: names of at most {_LONGEST_NAME} bytes are needed, as of files")
