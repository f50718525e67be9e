"""What every command shares: composing its configuration, one-line errors, the jobs of a sweep, exit codes."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
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

_LONGEST_NAME = 200  # bytes of a file's name, which has 255; runs add to theirs


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
    records: list[sweep_records.JobRecord] = []  # of jobs in this process
    codes: list[int] = []  # of a command that is no sweep
    call = SweepCall()  # a launcher carries it to other processes, within `job`
    keep_going()
    require_working_directory()
    sys.argv[1:] = in_order(sys.argv[1:], name, schema)
    show_where = os.environ.get("HYDRA_FULL_ERROR") == "1" or asks_for_debug(sys.argv[1:])

    def job(composed: DictConfig) -> float | None:
        current = HydraConfig.get()
        os.chdir(current.runtime.cwd)  # of the command: hydra.job.chdir=true has left it
        if current.mode != RunMode.MULTIRUN:
            codes.append(_run_job(composed, schema, task, primary=current.job.config_name, debug=show_where))
            return None
        if preload is not None and not records and sys.platform == "linux":  # forked with care elsewhere: from nothing
            preload()
        record = sweep_records.run_job(
            lambda: _run_job(composed, schema, task, primary=current.job.config_name, debug=show_where),
            current.job.num,
            current.overrides.task,
            call=call.name,
            sweep=call.folder,
        )
        records.append(record)
        if record.code in (INTERRUPTED, STOPPED) and record.state != "held":
            hand_to_launcher()
            sys.exit(record.code)  # the rest of the sweep too
        return sweep_start.figure(record)

    def begin(composed: DictConfig) -> None:
        try:
            given = sweep_start.swept_words(composed)
            refuse_sweep_over(given)
            refuse_without_effect(given, name, folder)
        except InputError as error:
            print_error(str(error))
            sys.exit(WRONG_INPUT)
        sweep_start.set_parameters(composed, lambda words: keep_typed(words, schema))
        processes.share_cores(composed)
        call.begin(composed)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through: they are put in one line below
    stopped, unexpected = DONE, None
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_text(name, folder, about, sys.argv[1:]))
            sys.exit(with_screen(DONE))
        try:
            processes.require_one_process()
            processes.prepare_threads()
            primary = _prepare(name, folder, schema)
            with sweep_start.listening(begin):
                hydra.main(version_base="1.3", config_path=str(config_folder("conf") / folder), config_name=primary)(
                    job
                )()
        except SystemExit as left:
            if call.folder is None:
                raise
            stopped = left.code if isinstance(left.code, int) else FAILED
    except InputError as error:  # of words
        if show_where:
            raise
        print_error(str(error))
        stopped = WRONG_INPUT
    except (HydraException, OmegaConfBaseException, OverflowError) as error:
        print_error(explain(error, schema))
        stopped = WRONG_INPUT
    except OSError as error:  # Hydra cannot write where a sweep's output goes
        print_error(f"{one_line(str(error))}; choose another output=")
        stopped = WRONG_INPUT
    except sweep_start.JobFailedError as error:  # the sweeper had enough
        print_error(f"the sweeper ended the sweep after {error}; hydra.sweeper.max_failure_rate=1 lets Optuna go on")
        stopped = FAILED
    except Exception as error:  # Hydra fails as it pleases on words that it did not expect
        if show_where:
            raise
        unexpected = error
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    if codes:
        sys.exit(with_screen(next((code for code in codes if code != DONE), stopped)))
    if call.folder is not None:
        try:
            records = sweep_records.end_call(call.folder, call.name, records, kept=call.kept)
        except InputError as error:
            print_error(f"the records of the jobs cannot be read: {error}")
            stopped = FAILED
        if not records and stopped == DONE and unexpected is None:
            print_error(f"no job has left a record in {call.folder}")
            stopped = FAILED
    if unexpected is not None:
        print_error(of_words(unexpected, sys.argv[1:]) if not records else f"the launcher failed: {named(unexpected)}")
        stopped = FAILED if records else WRONG_INPUT
    if records:
        table = None if call.folder is None else call.folder / "jobs.csv"
        sweep_records.show(records, [table] if table is not None and table.is_file() else [])
    sys.exit(with_screen(stopped or sweep_records.exit_code(records)))


def _prepare(name: str, folder: str, schema: type) -> str:
    """Make the words of the command line ready for Hydra, and return the name of its primary configuration.

    Raises `InputError` for words that change nothing, and for a `from_run=` that is no run folder.
    """
    words = sys.argv[1:]
    from_run = hasattr(schema, "from_run")
    refuse_hidden_configuration(words, name, has_from_run=from_run)
    refuse_without_effect(words, name, folder)
    sys.argv[1:] = keep_typed(words, schema)
    saved = saved_run.folder_of(sys.argv[1:]) if from_run else None
    if saved is None:
        return name
    saved_run.store(saved)
    return saved_run.PRIMARY


def _run_job(
    composed: DictConfig, schema: type, task: Callable[[Any], int], *, primary: str | None = None, debug: bool = False
) -> int:
    """Call `task` with the composed configuration as an object of `schema`, and return the exit code of the job.

    `primary` names the configuration that Hydra started from; None: it was composed by other means. With `debug` an
    error is raised, else it is printed in one line.
    """
    keep_going()  # another launcher's process is not the one that did it before

    def say(reason: str, remedy: str = "") -> None:
        announce(reason=reason)
        print_error(reason + remedy)

    try:
        debug = debug or bool(composed.get("debug", False))  # may name what there is not, like every value
        extra = sorted(set(leaf_keys(composed)) - set(leaf_keys(schema_tree(schema))))
        if extra:  # +key=value passes Hydra
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
    """Raise InputError for a value that no computer can count with, and for a text that no file can be named after."""
    for key in leaf_keys(composed):
        value = OmegaConf.select(composed, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key}={value}: a finite number is needed")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise InputError(f"{key}: {value.bit_length()} bits: a whole number below 2^63 is needed")
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise InputError(f"{key}={value!r}: text in UTF-8 and without NUL is needed")
        if isinstance(value, str) and max(len(part.encode()) for part in value.split("/")) > _LONGEST_NAME:
            raise InputError(f"{key}={value}: names of at most {_LONGEST_NAME} bytes are needed, as of files")
