"""Train one configuration, score it, and record it in its own run folder.

Examples
  python -m bdlf.train                                      # synthetic data, a few CPU minutes
  python -m bdlf.train dataset=regdb dfe.stage=3            # the paper's recipe on RegDB
  python -m bdlf.train -m variant=baseline,full seed=0,1,2  # six runs, each in its own folder
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bdlf.commandline.command import run_command
from bdlf.commandline.interruption import Interrupted, Interruption
from bdlf.commandline.jobs import DONE, INTERRUPTED, announce
from bdlf.config import Config
from bdlf.system.locks import held
from bdlf.system.memory import load

if TYPE_CHECKING:
    from bdlf.running.job import Job

log = logging.getLogger("bdlf")


def train(config: Config) -> int:
    """Run one job, and return its exit code.

    The job shows the result of a run that is finished, goes on with a run that was cut off, and starts any other run.
    """
    from bdlf.runs.logs import show_on_screen

    show_on_screen()
    with Interruption() as stop:
        try:
            return _train(config, stop)
        except Interrupted as signal:
            same = "the same command without rerun=true" if config.rerun else "the same command"
            log.info("interrupted by %s: %s goes on from the last checkpoint", signal, same)
            return INTERRUPTED


def _train(config: Config, stop: Interruption) -> int:
    load("bdlf.running.training")
    from bdlf.running.job import Job
    from bdlf.system.device import configure_process

    # Find the run
    job = Job(config)
    result = job.finished()

    # A finished run answers at once
    if result is not None:
        job.folder.warn_of_commit(result["commit"])
        missing = job.missing(result)
        if not missing:
            log.info("finished before: %s", job.folder.path)
            announce(state="skipped")
            job.tidy_up_if_abandoned(result)
            job.answer(result, agent=not config.dry_run)
            return DONE
        if config.dry_run:
            log.info("dry run: scores %d more rows of %s from its weights", len(missing), job.folder.path)

    # Configure this process. Nothing is seeded, because each part of a run has its own generator of random numbers
    configure_process(devices=config.devices, threads=config.threads, deterministic=config.deterministic)

    # A dry run says what would run, and ends here
    if config.dry_run:
        from bdlf.running.dry_run import describe

        announce(state="would run")
        if result is None:
            describe(job, job.prepare())
        return DONE

    # Lock the run, and do what is left to do
    with held(job.folder.lock, f"run {job.name}", remedy="choose another output=") as is_held:
        _train_alone(job, stop, is_held=is_held)
    return DONE


def _train_alone(job: Job, stop: Interruption, *, is_held: bool) -> None:
    """Do what is left to do for a run.

    `is_held` says whether this process holds the lock of the run. It does, unless the file system has no locks. Only a
    process that holds the lock may remove what other processes have left behind.
    """
    from bdlf.running.training import train_run
    from bdlf.runs.logs import log_to, warn_of
    from bdlf.runs.table import show_result
    from bdlf.scoring.missing_rows import add_missing_rows

    # Look again, because another process may have worked on the run while this one waited for the lock
    job.look_again()
    facts, result = job.facts(), job.finished()
    if result is not None and is_held:
        job.tidy_up(result)
    if result is not None and not job.missing(result):
        job.answer(result, agent=False)
        return

    # Prepare before anything is written, so that a mistake in the options neither makes a folder nor moves one
    experiment = job.prepare() if result is None else None
    if result is None and job.config.rerun:
        job.folder.move_aside()
    if result is None and is_held:
        job.folder.remove_leftovers()

    # Train and score, or score what is missing
    with log_to(job.folder.log):
        log.info("run %s in %s", job.name, job.folder.path)
        warn_of(facts["dataset_findings"], job.config.dataset.name)
        try:
            if experiment is not None:
                result = train_run(job, experiment, facts, stop)
                job.announce_objective(result)
                show_result(result)
            elif result is not None:
                job.answer(add_missing_rows(job.config, job.folder, job.listing, result))
        except Interrupted as signal:
            log.debug("interrupted by %s", signal)  # only train.log shows it, because the terminal may be closed
            raise
        except Exception:
            log.debug("traceback", exc_info=True)  # only train.log shows it
            raise


def main() -> None:
    """The command."""
    run_command("config", Config, train, __doc__ or "", preload=lambda: load("bdlf.running.training"))


if __name__ == "__main__":
    main()
