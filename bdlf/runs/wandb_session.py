"""How `wandb.init` is called from a job: it never asks, and never waits for long."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bdlf.runs.wandb_run import OF_ONE_RUN, WandbRun

log = logging.getLogger(__name__)

TIMEOUTS = {"init_timeout": 30.0, "finish_timeout": 30.0}
"""Seconds that W&B has to start a run on its server, and to send the rest at its end; WANDB_INIT_TIMEOUT and
WANDB_FINISH_TIMEOUT set others. W&B itself takes 90, and for ever."""


def begin(
    run: WandbRun, folder: Path, config: Mapping[str, Any], *, mode: str, resumed: bool, offline_instead: bool
) -> Any:
    """`wandb.init` for `run`, whose folder is `folder`. Returns W&B's run.

    Where W&B has no key, or its server does not answer in time, the run goes on offline and one warning says so;
    without `offline_instead` that is an error. Raises what W&B raises.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else the end of a process waits 20 s for a dead server
    import wandb

    place = files_of(folder)
    place.mkdir(parents=True, exist_ok=True)
    with _environment_of(run), _no_terminal():
        if not offline_instead or mode not in ("online", "run", "shared"):
            return _init(run, place, config, mode, resumed)
        try:
            return _init(run, place, config, mode, resumed)
        except Exception as error:  # whatever W&B raises, the run goes on
            login = isinstance(error, wandb.errors.UsageError | wandb.errors.AuthenticationError)
            log.warning(
                "W&B is not online (%s): %s; this run is kept offline below %s, and `wandb sync` sends it later "
                "(WANDB_MODE=offline or tracker=none silences this)",
                next(iter(str(error).splitlines()), type(error).__name__),
                "give a key by `wandb login` or WANDB_API_KEY" if login else "WANDB_INIT_TIMEOUT=SECONDS waits longer",
                place / "wandb",
            )
        end_service()  # the run that failed occupies the id there
        return _init(run, place, config, "offline", resumed)


def _init(run: WandbRun, place: Path, config: Mapping[str, Any], mode: str, resumed: bool) -> Any:
    import wandb

    known = wandb.Settings.model_fields
    timeouts = {key: value for key, value in TIMEOUTS.items() if f"WANDB_{key.upper()}" not in os.environ}
    asked: dict[str, Any] = {**timeouts, "finish_timeout_raises": True, "sweep_id": run.sweep}
    settings = {key: value for key, value in asked.items() if key in known}  # older W&B has no finish_timeout
    started = wandb.init(
        id=run.id,
        name=run.name,
        group=run.group,
        project=run.project,
        entity=run.entity,
        tags=run.tags,
        config=dict(config),
        dir=str(place),
        mode=mode,  # type: ignore[arg-type]
        resume="allow" if resumed else None,
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, **settings),
    )
    if run.sweep is not None:
        _warn_of_groups(started, config)
    return started


def _warn_of_groups(started: Any, config: Mapping[str, Any]) -> None:
    """W&B puts the sweep's parameters into the configuration, each under its name."""
    for key, value in config.items():
        if isinstance(value, Mapping) and not isinstance(started.config.get(key), Mapping):
            log.warning(
                "the W&B sweep's parameter %s hides the keys %s.* of W&B's copy of the configuration; "
                "let the sweep vary single keys, like %s.%s",
                *(key, key, key, next(iter(value), "name")),
            )


def finish(run: Any, *, failed: bool) -> None:
    """End W&B's run, and W&B's process where no other run of this Python process needs it."""
    import wandb

    run.finish(exit_code=int(failed))
    if wandb.run is None:
        end_service()


def files_of(folder: Path) -> Path:
    """The folder below which W&B writes its own folder `wandb`: WANDB_DIR, or else the run's folder.

    A W&B agent sets WANDB_DIR to the working directory where the user has not set it: that is no wish of the user's.
    """
    place = os.environ.get("WANDB_DIR")
    if not place or ("WANDB_SWEEP_ID" in os.environ and Path(place) == Path.cwd()):
        return folder
    return Path(place).absolute()


def end_service() -> None:
    """End W&B's own process and remove W&B's exit hook; other W&B runs of this Python process end too.

    SLURM sends its signals to every process of a job, and W&B's process ends at once at SIGTERM. The exit hook would
    show a traceback then.
    """
    with contextlib.suppress(Exception):
        import wandb

        wandb.teardown()


@contextlib.contextmanager
def _environment_of(run: WandbRun) -> Iterator[None]:
    """The environment without the variables that say which W&B run this process is; a trial keeps its parameters."""
    kept = {"WANDB_SWEEP_PARAM_PATH"} if run.sweep is not None and os.environ.get("WANDB_RUN_ID") == run.id else set()
    taken = {name: os.environ.pop(name) for name in OF_ONE_RUN if name in os.environ and name not in kept}
    try:
        yield
    finally:
        os.environ |= taken


@contextlib.contextmanager
def _no_terminal() -> Iterator[None]:
    """Standard input is no terminal, so W&B raises where it would ask for a key: a job in the background would stop."""
    before = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before
