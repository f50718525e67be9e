"""Decides which keys of a configuration are in use; building, identity and reports all ask here.

The functions take a configuration as a flat mapping from dotted keys to values, as `flat` returns it. A table can
therefore ask for "this configuration, but with dfe.stage=2" by changing one entry. This module does not import torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from bdlf.config import Config, Loss, Term
from bdlf.datasets import dataset_named

PAPER = "bdlf"
"""The method whose components Table 2 switches on and off."""
TWO_STREAM = ("agw", "caj", "lupi")
"""The methods that share one network, and so its options `method.two_stream.*`; another one has `method.<name>.*`."""
SILHOUETTES = ("sgiel",)
"""The methods whose networks are trained on silhouettes too."""
_BACKBONE_OF_ITS_OWN = {"deen": ("backbone.pooling",), "mmn": ("backbone.pooling", "backbone.last_stride")}
"""Keys of the backbone that a method does not read: DEEN and MMN pool by the average, MMN's last stride is 1."""
LOSS_GROUPS: dict[str, tuple[str, ...]] = {
    "app": ("fkl", "dkl", "dcorr"),
    "cmf": ("id_fused", "fbkl"),
    "detail": ("id_detail", "odkl"),
}
"""Terms that the paper switches together: Eqs. 15, 19 and 8."""


def _options_of(term: Term) -> tuple[str, ...]:
    return tuple(key.name for key in dataclasses.fields(term) if key.name not in ("enabled", "weight"))


TERM_OPTIONS: dict[str, tuple[str, ...]] = {
    name: _options_of(default) for name, default in vars(Loss()).items() if isinstance(default, Term)
}
"""The name of every term of the schema, in the order of the schema, with the options that only this term has."""

RAMPED = ("okl", "odkl", "bkl", "fbkl", "fkl", "dkl", "dcorr", "skd", "kl_erased", "related")
"""Terms whose weight grows linearly over the first part of training; `loss.ramp` is that part, in 0..1."""
_READ_DETAIL = (*LOSS_GROUPS["app"], "skd", *LOSS_GROUPS["detail"])
"""Terms that read Z^D."""
_READ_FUSED = LOSS_GROUPS["cmf"]
"""Terms that read Z_F^B."""
_READ_PROJECTION = (*_READ_FUSED, "id_base", "bkl", "fkl", "dkl", "dcorr", "orth", "skd")
"""Terms that read P, or a feature computed with it."""

COMPONENTS = ("DFE", "app", "orth", "skd")
"""The components that Table 2 of the paper switches on and off."""
_COMPONENT_TERMS = {"app": LOSS_GROUPS["app"], "orth": ("orth",), "skd": ("skd",)}

CORR_BASE, CORR_DETAIL, CORR_DETAIL_CENTRED = "corr_base", "corr_detail", "corr_detail_centred"
ATTENTION_OWN = "attention_own"
WATCHED = (CORR_BASE, CORR_DETAIL, CORR_DETAIL_CENTRED, ATTENTION_OWN)
"""What `bdlf.objective.correlations` computes beside the terms of the loss; every name is a column of metrics.csv."""


def flat(config: Any) -> dict[str, Any]:
    """The values of a configuration (a dataclass whose fields may be dataclasses) by dotted key: `loss.skd.weight`."""
    values: dict[str, Any] = {}
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value):
            values |= {f"{one.name}.{key}": inner for key, inner in flat(value).items()}
        else:
            values[one.name] = value
    return values


@cache
def _defaults() -> dict[str, Any]:
    return flat(Config())


def active_weights(values: Mapping[str, Any]) -> dict[str, float]:
    """The weight of every term that is on, by the term's name.

    A term that the method does not have (`method.terms`) is off. A weight of 0 switches a term off. Otherwise the
    term's own switch decides, and where that is None, the switch of the term's group. A term without a group is then
    on.

    The group `detail` may have None as its switch too. It is then on whenever the network has Z^D for another reason:
    because the DFE module is on, or because `skd` or a term of `app` reads Z^D (the row of Table 2 without DFE).
    """
    allowed = values["method.terms"]
    group_of = {term: group for group, members in LOSS_GROUPS.items() for term in members}
    groups = {group: values[f"loss.{group}.enabled"] for group in LOSS_GROUPS}

    def is_on(name: str) -> bool:
        if name not in allowed:
            return False
        switch = values[f"loss.{name}.enabled"]
        if switch is None:
            switch = groups[group_of[name]] if name in group_of else True
        return bool(switch) and values[f"loss.{name}.weight"] != 0

    if groups["detail"] is None:
        groups["detail"] = values["dfe.enabled"] or any(is_on(name) for name in (*LOSS_GROUPS["app"], "skd"))
    return {name: values[f"loss.{name}.weight"] for name in TERM_OPTIONS if is_on(name)}


def needs_detail(terms: Iterable[str]) -> bool:
    """Whether one of these terms reads Z^D; the network has a detail branch exactly then."""
    return not set(_READ_DETAIL).isdisjoint(terms)


def needs_projection(terms: Iterable[str]) -> bool:
    """Whether one of these terms reads P, or a feature computed with P; the network has P exactly then."""
    return not set(_READ_PROJECTION).isdisjoint(terms)


def needs_fusion(terms: Iterable[str]) -> bool:
    """Whether one of these terms reads the fused feature Z_F^B; the network has the fusion exactly then."""
    return not set(_READ_FUSED).isdisjoint(terms)


def components(values: Mapping[str, Any]) -> tuple[bool, bool, bool, bool]:
    """Whether each of `COMPONENTS` is on. `app` counts as on if at least one of its three terms is on."""
    terms = active_weights(values)
    on = {name: not set(members).isdisjoint(terms) for name, members in _COMPONENT_TERMS.items()}
    return bool(values["dfe.enabled"]) and needs_detail(terms), on["app"], on["orth"], on["skd"]


def _network_options(values: Mapping[str, Any]) -> list[str]:
    return [key for key in values if key.startswith("method.") and key not in ("method.name", "method.terms")]


def _is_read_by(key: str, method: str) -> bool:
    """Whether `key`, an option of a network, belongs to this method's."""
    return key.startswith(f"method.{'two_stream' if method in TWO_STREAM else method}.")


def foreign_keys(values: Mapping[str, Any]) -> list[str]:
    """The keys that the method of a flat configuration does not read, of those that belong to methods.

    They are the options of the networks of other methods, the row of Table 2 and its components for another method than
    the paper's, and everything about a loss term that is not among `method.terms`. `backbone.last_stride` is not among
    them, because the recipe of a dataset sets it for every method.
    """
    name = values["method.name"]
    foreign = [] if name == PAPER else ["variant", *(key for key in values if key.startswith(("dfe.", "beg.")))]
    for term in TERM_OPTIONS:
        if term not in values["method.terms"]:
            foreign += [key for key in values if key.startswith(f"loss.{term}.")]
    foreign += [key for key in _network_options(values) if not _is_read_by(key, name)]
    foreign += ["backbone.pooling"] if "backbone.pooling" in _BACKBONE_OF_ITS_OWN.get(name, ()) else []
    foreign += ["dataset.silhouettes"] if name not in SILHOUETTES else []
    return [*dict.fromkeys(foreign)]


def variant_name(switches: Iterable[bool]) -> str:
    """The name of the row of Table 2 in which these of `COMPONENTS` are on.

    It is `baseline` if none is on, `full` if all are, and otherwise lists those that are on, as in `dfe_app`.
    """
    on = [name.lower() for name, is_on in zip(COMPONENTS, switches, strict=True) if is_on]
    if not on:
        return "baseline"
    return "full" if len(on) == len(COMPONENTS) else "_".join(on)


def method_name(values: Mapping[str, Any]) -> str:
    """What a run is called: the row of Table 2 for the paper's method, else the name of its method."""
    return variant_name(components(values)) if values["method.name"] == PAPER else str(values["method.name"])


def with_components(values: Mapping[str, Any], switches: Iterable[bool]) -> dict[str, Any]:
    """A copy of the flat configuration `values` in which exactly these of `COMPONENTS` are on.

    All terms of a component may be off one by one, by a weight of 0 or by their own switches. `values` then does not
    say what "on" means for this component. If it is to be on, each of its terms is switched on, and a weight of 0 is
    replaced by the schema's default.
    """
    changed = dict(values)
    wanted = dict(zip(COMPONENTS, switches, strict=True))
    changed["dfe.enabled"] = wanted["DFE"]
    for name, members in _COMPONENT_TERMS.items():
        changed[f"loss.{name}.enabled"] = wanted[name]
        if wanted[name] and set(members).isdisjoint(active_weights(changed)):
            for member in members:
                changed[f"loss.{member}.weight"] = (
                    changed[f"loss.{member}.weight"] or _defaults()[f"loss.{member}.weight"]
                )
                changed[f"loss.{member}.enabled"] = True if member == name else None
    return changed


def in_use(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a flat configuration that decide the weights of its run, with their values.

    A key that changes nothing in this configuration is absent. The seed is absent too, because it only numbers the
    repetitions of one experiment. `dataset.name` ends in `-synthetic` if `bdlf.synthesize` wrote the dataset's tree. If
    `backbone.weights` names a file, its value here is the SHA-256 of the file.
    """
    used: dict[str, Any] = {}

    def take(*keys: str) -> None:
        used.update((key, values[key]) for key in keys)

    _take_data(values, used)
    take("method.name", "image.height", "image.width", "batch.identities", "batch.images")
    take("augment.flip", "augment.erase", "augment.exchange", "augment.grey")
    if values["augment.erase"]:
        take("augment.erase_area", "augment.erase_fill")
    used["augment.crop"] = bool(values["augment.crop"] and values["augment.pad"])
    if used["augment.crop"]:
        take("augment.pad")
    fixed = _BACKBONE_OF_ITS_OWN.get(values["method.name"], ())
    take("backbone.name", "backbone.weights")
    take(*(key for key in ("backbone.last_stride", "backbone.pooling") if key not in fixed))
    if values["backbone.weights"] not in ("imagenet", "none"):
        used["backbone.weights"] = values["backbone.weights_sha256"]

    take(*(key for key in _network_options(values) if _is_read_by(key, values["method.name"])))
    weights = active_weights(values)
    if needs_detail(weights):
        take("dfe.enabled", "dfe.stage", "dfe.norm")
        if values["dfe.enabled"]:
            take("dfe.blocks", "dfe.scale", "dfe.init", "dfe.attention_scaled", "dfe.attention_zero_value")
            take("dfe.mask_own_identity")
    if needs_projection(weights):
        take("beg.projection", "beg.init", "optimizer.projection_scale")
    if needs_fusion(weights):
        take("beg.fusion_scaled", "beg.fusion_zero_value")
    for term in weights:
        take(f"loss.{term}.weight", *(f"loss.{term}.{option}" for option in TERM_OPTIONS[term]))
    if "skd" in weights:  # only the form `stable` reads delta, only the two other forms read gamma
        del used["loss.skd.gamma" if values["loss.skd.form"] == "stable" else "loss.skd.delta"]
    if not set(RAMPED).isdisjoint(weights):
        take("loss.ramp")

    take("optimizer.lr", "optimizer.backbone_scale", "optimizer.momentum", "optimizer.nesterov")
    take("optimizer.weight_decay", "optimizer.clip", "schedule.epochs", "schedule.steps_per_epoch", "ema.enabled")
    warmup = values["schedule.warmup_epochs"]
    used["schedule.warmup_epochs"] = warmup if warmup > 1 else 0  # a warm-up of one epoch already has the full rate
    reached = [max(milestone, warmup) for milestone in values["schedule.milestones"]]
    used["schedule.milestones"] = [milestone for milestone in reached if milestone < values["schedule.epochs"]]
    if values["ema.enabled"]:
        take("ema.decay")
    take("precision", "deterministic", "on_nonfinite")
    return used


def _take_data(values: Mapping[str, Any], used: dict[str, Any]) -> None:
    name = values["dataset.name"]
    dataset = dataset_named(name)
    used["dataset.name"] = f"{name}-synthetic" if values["dataset.drawn"] else name
    rules = values["selection"]
    holds_out = "validation" in (rules if isinstance(rules, list | tuple) else [rules])
    if holds_out:
        used["selection.validation"] = True
    keys = {
        "image.range": dataset.has_files and not values["dataset.drawn"],  # drawn images have 8 bits
        "dataset.split": bool(dataset.numbered_splits),
        "evaluation.holdout": holds_out and not dataset.has_validation,
        "dataset.seed": not dataset.has_files or (holds_out and not dataset.has_validation),
        **{f"dataset.synthetic.{one}": not dataset.has_files for one in _SYNTHETIC},
    }
    used.update((key, values[key]) for key, is_used in keys.items() if is_used)


_SYNTHETIC = ("train_identities", "test_identities", "images_per_identity")

_DECIDING = (
    "method.",
    "dataset.",
    "image.",
    "batch.",
    "augment.",
    "backbone.",
    "dfe.",
    "beg.",
    "loss.",
    "optimizer.",
    "schedule.",
)
_NEVER = (
    *("method.terms", "dataset.root", "dataset.silhouettes", "dataset.follow_links", "dataset.drawn"),
    *("backbone.weights_sha256", "dfe.recompute"),
)


def can_decide(key: str) -> bool:
    """Whether there is a configuration in which this key decides the weights of the run.

    The other keys hold names and places, or say how the run is scored.
    """
    others = (
        "ema.enabled",
        "ema.decay",
        "precision",
        "deterministic",
        "on_nonfinite",
        "evaluation.holdout",
        "selection",
    )
    return key in others or (key.startswith(_DECIDING) and key not in _NEVER)
