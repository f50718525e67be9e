"""`objective=`: the one figure that a run returns to a sweeper that optimises, such as Optuna's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bdlf.config import Config
from bdlf.evaluation import choices
from bdlf.runs.folder import RunFolder
from bdlf.runs.record import CURVES, FIGURES, protocol
from bdlf.runs.selection import VALIDATION, selection_rules
from bdlf.system.errors import InputError
from bdlf.training.scoring import model_names

_PROTOCOL = ("mode", "shots", "direction", "gallery", "reading")
_HELD_OUT = "val_"


def objective_names(config: Config) -> list[str]:
    """Every name that `objective=` may have under the scoring that `config` asks for.

    - The mean over the protocols that are scored: `mean_mAP` and the like.
    - One protocol, its words joined by hyphens as in `metrics.csv`: `mAP/<protocol>`.
    - The mean of the identities held out of training, only with `selection=validation`: `val_mean_mAP`.
    """
    protocols = _protocols(config)
    names = [f"mean_{figure}" for figure in FIGURES] + [f"{figure}/{one}" for figure in FIGURES for one in protocols]
    if VALIDATION in selection_rules(config.selection):
        names += [f"{_HELD_OUT}mean_{figure}" for figure in CURVES]
    return names


def check_objective(config: Config) -> str:
    """The full name of the figure that `config.objective` names; a protocol may be cut short where only one begins so.

    Raises `InputError`, with every known name, where it names none or several.
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
    """The figure in percent that `config.objective` names, of a finished run.

    It is the figure of the model that is reported, at the epoch that the run's selection chose: by `validation` where
    that is among the rules, else by the last rule. Test images give every figure but those that begin with `val_`.
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
    """The mean over the protocols that `metrics.csv` has of the held-out identities after `epoch` (from 0)."""
    table = pd.read_csv(folder.metrics).set_index("epoch")
    columns = [name for name in table if name.startswith(f"{figure}/val-") and name.endswith(f"/{model}")]
    return float(table.loc[epoch, columns].mean())


def _protocols(config: Config) -> list[str]:
    asked = {name: getattr(config.evaluation, name) for name in _PROTOCOL}
    return [choice.name.replace(" ", "-") for choice in choices(config.dataset.name, **asked)]
