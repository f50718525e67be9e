"""Trains a run in its folder: goes on from its checkpoint, trains, scores, and records the result."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from bdlf.commandline.interruption import Interrupted, Interruption
from bdlf.data.batches import Batches
from bdlf.experiment import Experiment
from bdlf.networks.cost import gflops_per_image
from bdlf.running.job import Job
from bdlf.runs.card import flat_rows, summary
from bdlf.runs.metrics_log import MetricsLog
from bdlf.runs.record import source_state, training_columns, write_per_query, write_result
from bdlf.runs.tracker import Tracker, start_tracker
from bdlf.scoring.missing_rows import require_same_scoring
from bdlf.system.device import device_name, fabric_of, peak_memory_gib
from bdlf.system.files import write_text
from bdlf.training.checkpoint import load_newest
from bdlf.training.loop import Progress, fit
from bdlf.training.saving import Saver
from bdlf.training.scoring import Scorer
from bdlf.training.step import Learner

log = logging.getLogger("bdlf")


@dataclass(frozen=True)
class _Run:
    """The objects of a run that trains."""

    job: Job
    experiment: Experiment
    learner: Learner
    batches: Batches
    scorer: Scorer
    saver: Saver
    states: dict[str, Any]
    """The parts of a checkpoint by name."""
    facts: dict[str, Any]
    costs: tuple[float, float]
    """The floating-point operations for each image in 10^9, of training and of inference."""


def train_run(job: Job, experiment: Experiment, facts: dict[str, Any], stop: Interruption) -> dict[str, Any]:
    """Train the run of a job to its end, and return its result. The file of the result is written last.

    Training goes on from the run's checkpoint if there is one. `facts` are those of `Job.facts`. The caller holds the
    lock of the run. After a signal, which `stop` notices, the run saves a checkpoint and raises Interrupted.
    """
    run = _build(job, experiment, facts)
    progress = _resume(run) if job.resumes() else Progress()

    # Open the log of the epochs, and score the last epoch if the run was cut off before it was scored
    write_text(job.folder.config, OmegaConf.to_yaml(OmegaConf.structured(job.config)))
    columns = training_columns(experiment.objective.terms) + run.scorer.columns
    metrics = MetricsLog(job.folder.metrics, columns, keep_epochs=progress.epoch)
    run.scorer.selected.go_on(progress)
    if progress.epoch and not progress.step:
        run.scorer.after_epoch(progress.epoch - 1, metrics)

    tracker = start_tracker(job.config, job.folder.path, facts, earlier=metrics.rows)
    try:
        _show_a_batch(run, tracker)
        _train(run, progress, metrics, tracker, stop)
        result = _record(run, metrics)
        tracker.result(summary(result), flat_rows(result))
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close()
    return result


def _build(job: Job, experiment: Experiment, facts: dict[str, Any]) -> _Run:
    """Put the network on its device, decode the images, and build the objects that train, score and save."""
    config = job.config
    learner = experiment.learner(fabric_of(config.devices, config.precision))
    store = experiment.store(learner.fabric.device)
    identity = {key: facts[key] for key in ("run_id", "fingerprint")} | {"commit": source_state()["commit"]}
    states = {**experiment.trained.states, "optimizer": learner.optimizer}
    scorer = Scorer(
        experiment.trained,
        job.folder,
        store,
        experiment.table,
        experiment.settings,
        experiment.scoring,
        experiment.plan,
        identity,
    )
    return _Run(
        job=job,
        experiment=experiment,
        learner=learner,
        batches=experiment.batches(store),
        scorer=scorer,
        saver=Saver(job.folder.checkpoint, states, identity, **dataclasses.asdict(config.checkpoint)),
        states=states,
        facts=facts,
        costs=gflops_per_image(
            experiment.trained.network,
            config.image.height,
            config.image.width,
            teacher=experiment.objective.teacher,
        ),
    )


def _resume(run: _Run) -> Progress:
    """Give all parts of the run the state of its newest sound checkpoint, and return how far training had come.

    Raises InputError if the checkpoint belongs to another run, or if the images or the scoring have changed.
    """
    job, config, folder = run.job, run.job.config, run.job.folder
    state = load_newest(folder.checkpoint, device=run.learner.fabric.device)
    folder.require_same_run(folder.checkpoint, state["run_id"], job.name)
    folder.require_fingerprint(state["fingerprint"], job.fingerprint)
    folder.warn_of_commit(state["commit"])
    for name, part in run.states.items():
        part.load_state_dict(state[name])
    progress = Progress.of(state)
    if progress.epoch:
        require_same_scoring(config, folder)
    if progress.epoch < config.schedule.epochs:
        steps = run.experiment.sampler.steps_per_epoch
        log.info(
            "going on at epoch %d of %d, step %d of %d",
            *(progress.epoch + 1, config.schedule.epochs, progress.step + 1, steps),
        )
    else:
        log.info("all %d epochs are trained: scoring", config.schedule.epochs)
    return progress


def _show_a_batch(run: _Run, tracker: Tracker) -> None:
    """Send the first batch as a picture to the tracker.

    By default only drawn images are sent, because the images of real datasets are licensed. `tracker.pictures` decides
    otherwise.
    """
    drawn = "synthetic" in run.facts["dataset"]
    wanted = run.job.config.tracker.pictures
    if not (drawn if wanted is None else wanted):
        return
    store, rows = run.batches.store, run.experiment.training_rows
    batch = next(iter(run.experiment.sampler.epoch(0)))
    sides = [np.hstack(list(store.take(rows[side]).cpu().numpy())) for side in batch]
    tracker.picture("batch", np.vstack(sides))


def _train(run: _Run, start: Progress, metrics: MetricsLog, tracker: Tracker, stop: Interruption) -> None:
    """Train to the end. After each epoch, write its row of metrics.csv and its checkpoint, and then score it."""
    epochs, saver = run.job.config.schedule.epochs, run.saver
    saved = progress = start
    steps = fit(
        run.learner,
        run.batches,
        run.experiment.recipe,
        start=start,
        pause=lambda: bool(stop.asked) or saver.due_after_step(),
    )
    try:
        with stop.held():
            for progress in steps:
                if progress.record is not None:
                    memory = peak_memory_gib(run.learner.fabric.device)
                    metrics.append({**progress.record, "memory_gib": memory})
                if progress.record is None or progress.epoch == epochs or saver.due_after_epoch():
                    saver.save(progress)
                    run.scorer.selected.checkpoint_saved(progress)
                    saved = progress
                if stop.asked:
                    break
                if progress.record is not None:
                    with stop.released():
                        run.scorer.after_epoch(progress.epoch - 1, metrics)
                    tracker.epoch(metrics.rows[-1])
                    log.info("%s", _epoch_line(metrics.rows[-1], epochs))
    except Interrupted:
        if saved != progress:
            saver.save(progress)
        raise


def _record(run: _Run, metrics: MetricsLog) -> dict[str, Any]:
    """Score what the selection rules chose, write `per_query.npz` and `result.json`, and return the result."""
    experiment, config, device = run.experiment, run.job.config, run.learner.fabric.device
    seconds = sum(float(row["seconds"]) for row in metrics.rows)
    (rows, scores), chosen = run.scorer.result(metrics)
    write_per_query(run.job.folder.per_query, scores)
    result = write_result(
        run.job.folder.result,
        metrics=rows,
        **run.facts,
        variant=config.variant,
        selection=config.selection,
        chosen=chosen,
        trained_identities=len(experiment.sampler.pids),
        held_out_identities=experiment.held_out_identities,
        epochs=config.schedule.epochs,
        steps_per_epoch=experiment.sampler.steps_per_epoch,
        train_seconds=seconds,
        images_per_second=experiment.trained_images / seconds,
        peak_memory_gib=peak_memory_gib(device),
        train_gflops=run.costs[0],
        inference_gflops=run.costs[1],
        parameters=experiment.parameters,
        device=device_name(device),
        precision=config.precision,
    )
    run.scorer.selected.finish({rule: one["epoch"] for rule, one in chosen.items()})
    return result


def _epoch_line(record: dict[str, Any], epochs: int) -> str:
    shown = ["total", "id", "tri", "skd", "corr_base", "corr_detail"]
    values = "  ".join(f"{name} {record[name]:.3f}" for name in shown if name in record)
    scores = "  ".join(f"{name} {value:.1f}" for name, value in record.items() if name.startswith("rank1/"))
    speed = f"{record['images_per_second']:.0f} images/s"
    return f"epoch {int(record['epoch']) + 1}/{epochs}  {values}  {speed}  {scores}".rstrip()
