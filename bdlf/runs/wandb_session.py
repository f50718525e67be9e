"""Starts and ends W&B inside a job. W&B must not ask the user anything here, and must not wait for long."""

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
"""Seconds that W&B may take to start a run on its server, and to send what is left at the run's end.

WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT set other limits. W&B's own defaults are 90 seconds, and no limit.
"""


def begin(
    run: WandbRun, folder: Path, config: Mapping[str, Any], *, mode: str, resumed: bool, offline_instead: bool
) -> Any:
    """Call `wandb.init` for `run`, whose run folder is `folder`, and return W&B's object for the run.

    `resumed` says whether the run may already be in W&B and goes on there. If W&B has no key, or its server does not
    answer in time, the run is tracked offline and one warning says so. Without `offline_instead` it is not, and what
    W&B raises is raised here.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B would wait 20 s for a dead server as the process ends
    import wandb

    place = files_of(folder)
    place.mkdir(parents=True, exist_ok=True)
    with _environment_of(run), _no_terminal():
        if not offline_instead or mode not in ("online", "run", "shared"):
            return _init(run, place, config, mode, resumed)
        try:
            return _init(run, place, config, mode, resumed)
        except Exception as error:  # the run goes on, whatever W&B raises
            login = isinstance(error, wandb.errors.UsageError | wandb.errors.AuthenticationError)
            log.warning(
                "W&B is not online (%s): %s; this run is kept offline below %s, and `wandb sync` sends it later "
                "(WANDB_MODE=offline or tracker=none silences this)",
                next(iter(str(error).splitlines()), type(error).__name__),
                "give a key by `wandb login` or WANDB_API_KEY" if login else "WANDB_INIT_TIMEOUT=SECONDS waits longer",
                place / "wandb",
            )
        end_service()  # W&B's process still holds the failed run, which has the same id
        return _init(run, place, config, "offline", resumed)


def _init(run: WandbRun, place: Path, config: Mapping[str, Any], mode: str, resumed: bool) -> Any:
    import wandb

    known = wandb.Settings.model_fields
    timeouts = {key: value for key, value in TIMEOUTS.items() if f"WANDB_{key.upper()}" not in os.environ}
    asked: dict[str, Any] = {**timeouts, "finish_timeout_raises": True, "sweep_id": run.sweep}
    settings = {key: value for key, value in asked.items() if key in known}  # older versions of W&B lack some
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
    """Warn of each parameter of the W&B sweep that replaces a whole group of keys in W&B's copy of the configuration.

    W&B stores a parameter under its name, so a parameter `augment` takes the place of the keys `augment.*`.
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and not isinstance(started.config.get(key), Mapping):
            log.warning(
                "the W&B sweep's parameter %s hides the keys %s.* of W&B's copy of the configuration; "
                "let the sweep vary single keys, like %s.%s",
                *(key, key, key, next(iter(value), "name")),
            )


def finish(run: Any, *, failed: bool) -> None:
    """End the run in W&B. If this Python process has no other W&B run, also end W&B's own process."""
    import wandb

    run.finish(exit_code=int(failed))
    if wandb.run is None:
        end_service()


def files_of(folder: Path) -> Path:
    """The folder in which W&B makes its own folder `wandb`: WANDB_DIR, or the run's folder if that is not set.

    If the user has not set WANDB_DIR, a W&B agent sets it to the working directory. That value does not count.
    """
    place = os.environ.get("WANDB_DIR")
    if not place or ("WANDB_SWEEP_ID" in os.environ and Path(place) == Path.cwd()):
        return folder
    return Path(place).absolute()


def end_service() -> None:
    """End W&B's own process and remove W&B's exit hook. All W&B runs of this Python process end with it.

    SLURM sends a signal to every process of a job, and W&B's process exits immediately on SIGTERM. W&B's exit hook
    would then print a traceback.
    """
    with contextlib.suppress(Exception):
        import wandb

        wandb.teardown()


@contextlib.contextmanager
def _environment_of(run: WandbRun) -> Iterator[None]:
    """Removes OF_ONE_RUN from the environment during the block, so that W&B obeys `wandb.init`.

    The trial of a W&B agent keeps WANDB_SWEEP_PARAM_PATH, from which W&B reads the trial's parameters.
    """
    kept = {"WANDB_SWEEP_PARAM_PATH"} if run.sweep is not None and os.environ.get("WANDB_RUN_ID") == run.id else set()
    taken = {name: os.environ.pop(name) for name in OF_ONE_RUN if name in os.environ and name not in kept}
    try:
        yield
    finally:
        os.environ |= taken


@contextlib.contextmanager
def _no_terminal() -> Iterator[None]:
    """Replaces standard input by an empty file during the block.

    W&B asks for a key if standard input is a terminal, and a job in the background would stop there. Without a
    terminal W&B raises an error instead.
    """
    before = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before
