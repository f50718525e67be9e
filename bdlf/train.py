"""Train one configuration, score it, and record it in its own run folder.

Examples
  python -m bdlf.train                                      # synthetic data, a few CPU minutes
  python -m bdlf.train dataset=regdb dfe.stage=3            # the paper's recipe on RegDB
  python -m bdlf.train -m variant=baseline,full seed=0,1,2  # six runs, each in its own folder
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import resource
import sys
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from bdlf.commandline.command import run_command
from bdlf.commandline.interruption import Interrupted, Interruption
from bdlf.commandline.jobs import DONE, INTERRUPTED, announce
from bdlf.config import Config
from bdlf.system.errors import InputError
from bdlf.system.locks import held
from bdlf.system.memory import load

if TYPE_CHECKING:
    import pandas as pd

    from bdlf.parts import Parts
    from bdlf.runs.folder import RunFolder

log = logging.getLogger("bdlf")


def train(config: Config) -> int:
    """One job: show its result when it is finished, go on when it was cut off, else start. Returns the exit code."""
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
    load("bdlf.training.scoring")
    from bdlf import build
    from bdlf.data import fingerprint
    from bdlf.datasets.checking.published import quick_findings
    from bdlf.dry_run import describe
    from bdlf.parts import Parts
    from bdlf.runs.folder import RunFolder
    from bdlf.runs.identity import run_id, run_path, with_facts
    from bdlf.runs.logs import log_to, warn_of
    from bdlf.runs.selection import selection_rules
    from bdlf.runs.table import show_result
    from bdlf.runs.tracker import answer_agent
    from bdlf.runs.wandb_run import wandb_mode
    from bdlf.scoring.missing_rows import add_missing_rows, missing_rows, show_asked
    from bdlf.scoring.objective_value import check_objective, objective_value
    from bdlf.training.checkpoint import has_checkpoint

    selection_rules(config.selection)  # refuses what is no rule before anything else is looked at
    if config.tracker.name == "wandb":
        wandb_mode()  # refuses a misspelt WANDB_MODE, likewise
    check_objective(config)
    config = with_facts(config)
    name, folder = run_id(config), RunFolder(run_path(config))
    announce(run_id=name, folder=str(folder.path), log=str(folder.log))
    listing = build.build_listing(config.dataset)
    facts: dict[str, Any] = {
        "run_id": name,
        "label": folder.label,
        "dataset": build.dataset_name(config.dataset),
        "fingerprint": fingerprint(listing, config.dataset.root),
        "test_fingerprint": fingerprint(listing[listing["split"] == "test"], config.dataset.root),
        "dataset_findings": quick_findings(listing, config.dataset.root),
        "seed": config.seed,
    }

    # A finished run answers at once
    result = None if config.rerun else folder.finished(name, facts["fingerprint"])
    if result is not None:
        folder.warn_of_commit(result["commit"])
        missing = missing_rows(config, folder, result)
        if not missing:
            log.info("finished before: %s", folder.path)
            announce(state="skipped")
            if folder.lock.exists():  # left by a process that was killed, or another one is adding rows
                with contextlib.suppress(InputError), held(folder.lock, f"run {name}", remedy=""):
                    _remove_what_is_left(folder, result)
            if not config.dry_run:
                answer_agent(config, folder, result)
            announce(objective=objective_value(config, folder, result))
            show_asked(config, folder, result)
            return DONE
        if config.dry_run:
            log.info("dry run: scores %d more rows of %s from its weights", len(missing), folder.path)
    if config.dry_run:
        announce(state="would run")
        if result is None:
            describe(config, folder, Parts(config, listing, resumed=False))
        return DONE

    with held(folder.lock, f"run {name}", remedy="choose another output=") as alone:
        folder = RunFolder(run_path(config))  # another process may have made it a moment ago, under another label
        announce(folder=str(folder.path), log=str(folder.log))
        facts["label"] = folder.label
        result = None if config.rerun else folder.finished(name, facts["fingerprint"])
        parts = None
        if result is None:  # a mistake in the options must neither make a folder nor move one
            resumed = has_checkpoint(folder.checkpoint) and not config.rerun
            parts = Parts(config, listing, resumed=resumed)
            if config.rerun:
                folder.move_aside()
            if alone:
                folder.remove_leftovers()
        else:
            if alone:
                _remove_what_is_left(folder, result)
            if not missing_rows(config, folder, result):  # added by the process that held the lock a moment ago
                announce(objective=objective_value(config, folder, result))
                show_asked(config, folder, result)
                return DONE
        with log_to(folder.log):
            log.info("run %s in %s", name, folder.path)
            warn_of(facts["dataset_findings"], config.dataset.name)
            try:
                if parts is not None:
                    result = _run(config, parts, folder, listing, facts, stop)
                    announce(objective=objective_value(config, folder, result))
                    show_result(result)
                elif result is not None:
                    result = add_missing_rows(config, folder, listing, result)
                    answer_agent(config, folder, result)
                    announce(objective=objective_value(config, folder, result))
                    show_asked(config, folder, result)
            except Interrupted as signal:
                log.debug("interrupted by %s", signal)  # to train.log only: a closed terminal shows nothing
                raise
            except Exception:
                log.debug("traceback", exc_info=True)  # to train.log only
                raise
    return DONE


def _remove_what_is_left(folder: RunFolder, result: dict[str, Any]) -> None:
    """What a process left that was killed after it wrote the result; for who holds the lock."""
    from bdlf.training.selected import SelectedWeights

    epochs = {rule: chosen["epoch"] for rule, chosen in result["chosen"].items()}
    SelectedWeights(folder, list(epochs), generations=1).finish(epochs)
    folder.remove_leftovers()


def _run(
    config: Config, parts: Parts, folder: RunFolder, listing: pd.DataFrame, facts: dict[str, Any], stop: Interruption
) -> dict[str, Any]:
    import numpy as np

    from bdlf import build
    from bdlf.networks.cost import gflops_per_image
    from bdlf.runs.card import flat_rows, summary
    from bdlf.runs.metrics_log import MetricsLog
    from bdlf.runs.record import source_state, training_columns, write_per_query, write_result
    from bdlf.runs.tracker import start_tracker
    from bdlf.scoring.missing_rows import require_same_scoring
    from bdlf.system.files import write_text
    from bdlf.training.checkpoint import load_newest
    from bdlf.training.ema import Averaged
    from bdlf.training.loop import Progress, fit
    from bdlf.training.saving import Saver
    from bdlf.training.scoring import Scorer

    # Parts
    fabric, table, network = parts.fabric, parts.table, parts.network
    sampler, objective = parts.sampler, parts.objective
    model = build.set_up(config, fabric, network)
    optimizer = build.build_optimizer(config.optimizer, network)
    averaged = Averaged(network, config.ema.decay) if config.ema.enabled else None
    store = build.build_store(config, listing, fabric.device)
    rows = build.training_rows(table)
    costs = gflops_per_image(network, config.image.height, config.image.width)
    identity = {key: facts[key] for key in ("run_id", "fingerprint")} | {"commit": source_state()["commit"]}
    weights: dict[str, Any] = {"model": network, **({"averaged": averaged} if averaged is not None else {})}
    models = build.models_to_score(network, averaged)
    scorer = Scorer(config, folder, weights, models, store, table, parts.settings, identity)

    saver = Saver(
        folder.checkpoint, {**weights, "optimizer": optimizer}, identity, **dataclasses.asdict(config.checkpoint)
    )

    # Where an earlier process stopped
    progress = Progress()
    if parts.resumed:
        state = load_newest(folder.checkpoint, device=fabric.device)
        folder.require_same_run(folder.checkpoint, state["run_id"], facts["run_id"])
        folder.require_fingerprint(state["fingerprint"], facts["fingerprint"])
        folder.warn_of_commit(state["commit"])
        for name, part in {**weights, "optimizer": optimizer}.items():
            part.load_state_dict(state[name])
        progress = Progress.of(state)
        del state
        if progress.epoch:
            require_same_scoring(config, folder)
        if progress.epoch < config.schedule.epochs:
            log.info(
                "going on at epoch %d of %d, step %d of %d",
                *(progress.epoch + 1, config.schedule.epochs, progress.step + 1, sampler.steps_per_epoch),
            )
        else:
            log.info("all %d epochs are trained: scoring", config.schedule.epochs)
    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.structured(config)))
    columns = training_columns(objective.terms) + scorer.columns
    metrics = MetricsLog(folder.metrics, columns, keep_epochs=progress.epoch)
    scorer.selected.go_on(progress)
    if progress.epoch and not progress.step:  # perhaps left unscored
        scorer.after_epoch(progress.epoch - 1, metrics)
    tracker = start_tracker(config, folder.path, facts, earlier=metrics.rows)
    try:
        drawn = "synthetic" in facts["dataset"]
        if config.tracker.pictures or (config.tracker.pictures is None and drawn):
            batch = next(iter(sampler.epoch(0)))
            sides = [np.hstack(list(store.take(rows[side]).cpu().numpy())) for side in batch]
            tracker.picture("batch", np.vstack(sides))

        # Train: an epoch, its row and its checkpoint, then its scores
        saved = progress
        steps = fit(
            fabric, model, network, optimizer, averaged, objective, sampler, parts.augmentation, store, rows,
            parts.recipe, start=progress, pause=lambda: bool(stop.asked) or saver.due_after_step(),
        )  # fmt: skip
        try:
            with stop.held():
                for progress in steps:
                    if progress.record is not None:
                        metrics.append({**progress.record, "memory_gib": _peak_memory_gib(fabric.device)})
                    if progress.record is None or progress.epoch == config.schedule.epochs or saver.due_after_epoch():
                        saver.save(progress)
                        scorer.selected.checkpoint_saved(progress)
                        saved = progress
                    if stop.asked:
                        break
                    if progress.record is not None:
                        with stop.released():
                            scorer.after_epoch(progress.epoch - 1, metrics)
                        tracker.epoch(metrics.rows[-1])
                        log.info("%s", _epoch_line(metrics.rows[-1], config.schedule.epochs))
        except Interrupted:
            if saved != progress:
                saver.save(progress)
            raise

        # Record
        seconds = sum(float(row["seconds"]) for row in metrics.rows)
        (result_rows, scores), chosen = scorer.result(metrics)
        write_per_query(folder.per_query, scores)
        result = write_result(
            folder.result,
            metrics=result_rows,
            **facts,
            variant=config.variant,
            selection=config.selection,
            chosen=chosen,
            trained_identities=len(sampler.pids),
            held_out_identities=table["pid"][table["split"] == "val"].nunique(),
            epochs=config.schedule.epochs,
            steps_per_epoch=sampler.steps_per_epoch,
            train_seconds=seconds,
            images_per_second=parts.images / seconds,
            peak_memory_gib=_peak_memory_gib(fabric.device),
            train_gflops=costs[0],
            inference_gflops=costs[1],
            parameters=parts.parameters,
            device=build.device_name(fabric.device),
            precision=config.precision,
        )
        scorer.selected.finish({rule: one["epoch"] for rule, one in chosen.items()})
        tracker.result(summary(result), flat_rows(result))
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close()
    return result


def _epoch_line(record: dict[str, Any], epochs: int) -> str:
    shown = ["total", "id", "tri", "skd", "corr_base", "corr_detail"]
    values = "  ".join(f"{name} {record[name]:.3f}" for name in shown if name in record)
    scores = "  ".join(f"{name} {value:.1f}" for name, value in record.items() if name.startswith("rank1/"))
    speed = f"{record['images_per_second']:.0f} images/s"
    return f"epoch {int(record['epoch']) + 1}/{epochs}  {values}  {speed}  {scores}".rstrip()


def _peak_memory_gib(device: Any) -> float:
    """Of the GPU's tensors, or of this process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    """The command."""
    run_command("config", Config, train, __doc__ or "", preload=lambda: load("bdlf.training.scoring"))


if __name__ == "__main__":
    main()
