"""`objective=`: the one figure of a run that a sweeper such as Optuna's optimises."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bdlf.config import Config
from bdlf.evaluation import Asked, choices
from bdlf.runs.folder import RunFolder
from bdlf.runs.record import CURVES, FIGURES, protocol
from bdlf.runs.selection import VALIDATION, selection_rules
from bdlf.system.errors import InputError
from bdlf.training.scoring import model_names

_HELD_OUT = "val_"


def objective_names(config: Config) -> list[str]:
    """Every value that `objective=` may have, given the scoring that `config` asks for.

    - Means over the protocols that are scored: `mean_mAP` and the like.
    - Figures of one protocol, whose words are joined by hyphens as in `metrics.csv`: `mAP/<protocol>` and the like.
    - Means over the protocols of the identities held out of training: `val_mean_mAP` and the like. They exist only with
      `selection=validation`.
    """
    protocols = _protocols(config)
    names = [f"mean_{figure}" for figure in FIGURES] + [f"{figure}/{one}" for figure in FIGURES for one in protocols]
    if VALIDATION in selection_rules(config.selection):
        names += [f"{_HELD_OUT}mean_{figure}" for figure in CURVES]
    return names


def check_objective(config: Config) -> str:
    """The full name of the figure that `config.objective` names.

    A user may shorten the name of a protocol to its first words, if only one protocol begins with them. Raises
    InputError if the value names no figure or several; the message lists the names that are known.
    """
    known = objective_names(config)
    if config.objective in known:
        return config.objective
    begun = [name for name in known if "/" in config.objective and name.startswith(f"{config.objective}-")]
    if len(begun) == 1:
        return begun[0]
    if config.objective.startswith(_HELD_OUT) and VALIDATION not in selection_rules(config.selection):
        raise InputError(f"objective={config.objective} needs identities that are held out: selection=validation")
    if begun:
        raise InputError(f"objective={config.objective} could be any of {', '.join(begun)}")
    close = difflib.get_close_matches(config.objective, known, n=1)
    hint = f"; did you mean {close[0]}" if close else ""
    raise InputError(f"objective={config.objective} is not known{hint}; known: {', '.join(known)}")


def objective_value(config: Config, folder: RunFolder, result: Mapping[str, Any]) -> float:
    """The figure of a finished run that `config.objective` names, in percent.

    The figure belongs to the model that is reported, at the epoch that a selection rule chose: `validation` if it is
    among the run's rules, else the last of them. Figures whose names begin with `val_` are computed on the identities
    held out of training, all others on the test images.
    """
    name = check_objective(config)
    rules = selection_rules(config.selection)
    rule = VALIDATION if VALIDATION in rules else rules[-1]
    model = model_names(averaged=config.ema.enabled)[0]
    if name.startswith(_HELD_OUT):
        return _held_out(folder, name.removeprefix(f"{_HELD_OUT}mean_"), model, result["chosen"][rule]["epoch"])
    figure, _, wanted = name.removeprefix("mean_").partition("/")
    protocols = [wanted] if wanted else _protocols(config)
    card = {
        "model": model,
        "selection": rule,
        "feature": config.evaluation.feature,
        "flip": config.evaluation.flip,
    }
    values = [
        row["mean"][figure]
        for row in result["metrics"]
        if protocol(row).replace(" ", "-") in protocols and all(row[key] == value for key, value in card.items())
    ]
    return float(sum(values) / len(values))


def _held_out(folder: RunFolder, figure: str, model: str, epoch: int) -> float:
    """The figure of the held-out identities after `epoch` (from 0), averaged over the protocols in `metrics.csv`."""
    table = pd.read_csv(folder.metrics).set_index("epoch")
    columns = [name for name in table if name.startswith(f"{figure}/val-") and name.endswith(f"/{model}")]
    return float(table.loc[epoch, columns].mean())


def _protocols(config: Config) -> list[str]:
    return [choice.name.replace(" ", "-") for choice in choices(config.dataset.name, Asked.of(config.evaluation))]
