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
    from bdlf.errors import InputError
    from bdlf.runs.folder import RunFolder, read_config
    from bdlf.runs.identity import run_label
    from bdlf.runs.logs import show_on_screen
    from bdlf.runs.record import write_per_query, write_result
    from bdlf.runs.table import show_result
    from bdlf.training.checkpoint import load_checkpoint
    from bdlf.training.ema import averaged_copy

    show_on_screen()
    folder = RunFolder(Path(config.run))
    run = read_config(folder.config)
    state = load_checkpoint(folder.checkpoint)
    changes = {name: value for name, value in dataclasses.asdict(config.evaluation).items() if value is not None}
    run.evaluation = dataclasses.replace(run.evaluation, **changes)
    run.dataset.root = config.dataset.root or run.dataset.root
    run.data, run.devices, run.threads = config.data, config.devices, config.threads
    build.check_values(run)

    listing = build.build_listing(run.dataset)
    digest = fingerprint(listing, run.dataset.root)
    folder.require_fingerprint(state["fingerprint"], digest)
    settings = build.build_settings(run, listing)
    fabric = build.build_fabric(run)
    identities = len(build.build_sampler(run, listing).pids)
    network = build.build_model(run, identities, build.build_objective(run), weights="none")
    averaged = averaged_copy(network, run.ema.decay) if run.ema.enabled else None
    try:
        network.load_state_dict(state["model"])
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
    except (RuntimeError, KeyError) as error:
        raise InputError(f"{folder.checkpoint} is not of the configuration in {folder.config}; restore both") from error
    models = build.models_to_score(network, averaged)
    for model in models.values():
        model.to(fabric.device)

    store = build.build_store(run, listing)
    dataset = build.dataset_name(run.dataset)
    selection = "last_epoch" if state["epoch"] == run.schedule.epochs else "unfinished"
    rows, scores = build.score_models(
        run, models, store, listing, settings, fabric.device, dataset, state["epoch"] - 1, selection
    )
    protocol = {
        key: value for key, value in dataclasses.asdict(run.evaluation).items() if key not in ("batch", "every")
    }
    name = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]
    output = Path(config.output) if config.output else folder.path / "evaluations" / name
    write_per_query(output / "per_query.npz", scores)
    result = write_result(
        output / "result.json",
        metrics=rows,
        run_id=state["run_id"],
        label=run_label(run),
        dataset=dataset,
        fingerprint=digest,
        seed=run.seed,
        variant=run.variant,
        selection=selection,
        epochs=run.schedule.epochs,
        device=build.device_name(fabric.device),
    )
    show_result(result)
    log.info("written to %s", output / "result.json")
    return DONE


if __name__ == "__main__":
    run_command("evaluate", EvaluateConfig, evaluate, __doc__ or "")
