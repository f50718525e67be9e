"""Score the checkpoint of a run again, under the same or another protocol; the run's own result is never touched.

Examples
  python -m bdlf.evaluate run=outputs/synthetic/full-1a2b3c4d/seed0
  python -m bdlf.evaluate run=outputs/sysu/full-1a2b3c4d/seed0 evaluation.mode=indoor
  python -m bdlf.evaluate run=outputs/regdb/full-1a2b3c4d/seed0 evaluation.feature=before_bn output=/tmp/before
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

from bdlf.command import DONE, run_command
from bdlf.config import EvaluateConfig

log = logging.getLogger("bdlf")


def evaluate(config: EvaluateConfig) -> int:
    """Returns the exit code."""
    from bdlf import build
    from bdlf.data import fingerprint
    from bdlf.runs.folder import RunFolder, read_config
    from bdlf.runs.identity import run_id
    from bdlf.runs.logs import show_on_screen
    from bdlf.runs.record import write_per_query, write_result
    from bdlf.runs.table import show_result
    from bdlf.training.checkpoint import load_checkpoint
    from bdlf.training.ema import averaged_copy

    show_on_screen()
    folder = RunFolder(Path(config.run))
    run = read_config(folder.config)
    identity = run_id(run)
    run.dataset.root = config.root or run.dataset.root
    run.devices = config.devices
    changes = {name: value for name, value in dataclasses.asdict(config.evaluation).items() if value is not None}
    run.evaluation = dataclasses.replace(run.evaluation, **changes)

    listing = build.build_listing(run.dataset)
    digest = fingerprint(listing, run.dataset.root)
    sampler = build.build_sampler(run, listing)
    settings = build.build_settings(run, listing)
    fabric = build.build_fabric(run)
    network = build.build_model(run, len(sampler.pids), build.build_objective(run), weights="none")
    averaged = averaged_copy(network, run.ema.decay) if run.ema.enabled else None

    state = load_checkpoint(folder.checkpoint)
    folder.require_same_run(state["run_id"], identity)
    folder.require_fingerprint(state["fingerprint"], digest)
    network.load_state_dict(state["model"])
    if averaged is not None:
        averaged.load_state_dict(state["averaged"])
    models = build.models_to_score(network, averaged)
    for model in models.values():
        model.to(fabric.device)

    store = build.build_store(run, listing)
    dataset = build.dataset_name(run.dataset)
    rows, scores = build.score_models(run, models, store, listing, settings, fabric.device, dataset, state["epoch"] - 1)
    chosen = json.dumps(dataclasses.asdict(run.evaluation), sort_keys=True)
    output = (
        Path(config.output)
        if config.output
        else folder.path / "evaluations" / hashlib.sha256(chosen.encode()).hexdigest()[:8]
    )
    write_per_query(output / "per_query.npz", scores)
    result = write_result(
        output / "result.json",
        metrics=rows,
        run_id=identity,
        label=folder.path.absolute().parent.name.rpartition("-")[0],
        dataset=dataset,
        fingerprint=digest,
        seed=run.seed,
        selection="last_epoch",
        epochs=run.schedule.epochs,
    )
    show_result(result)
    log.info("written to %s", output / "result.json")
    return DONE


if __name__ == "__main__":
    run_command("evaluate", EvaluateConfig, evaluate, __doc__ or "")
