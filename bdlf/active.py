"""What of a configuration is in use: the one place that decides it for building, identity and report.

A configuration is read here as a flat mapping from dotted keys to values, as `flat` gives it, so that a table can ask
for "this configuration, but with dfe.stage=2" by changing one entry. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from bdlf.config import Config, Loss, Term

LOSS_GROUPS: dict[str, tuple[str, ...]] = {
    "app": ("fkl", "dkl", "dcorr"),
    "cmf": ("id_fused", "fbkl"),
    "detail": ("id_detail", "odkl"),
}
"""Terms that the paper switches together: Eqs. 15, 19 and 8."""
TERM_OPTIONS: dict[str, tuple[str, ...]] = {
    one.name: tuple(key.name for key in dataclasses.fields(default) if key.name not in ("enabled", "weight"))
    for one in dataclasses.fields(Loss)
    if isinstance(default := getattr(Loss(), one.name), Term)
}
"""Every term of the schema with the options that only it has, in the order of the schema."""

DISTILLATION = ("okl", "odkl", "bkl", "fbkl", "fkl", "dkl", "dcorr", "skd")
"""Terms whose weight grows over the first `loss.ramp` of training."""
_READ_DETAIL = (*LOSS_GROUPS["app"], "skd", *LOSS_GROUPS["detail"])
"""Terms that read Z^D."""
_READ_FUSED = LOSS_GROUPS["cmf"]
"""Terms that read Z_F^B."""
_READ_PROJECTION = (*_READ_FUSED, "id_base", "bkl", "fkl", "dkl", "dcorr", "orth", "skd")
"""Terms that read P, or a feature computed with it."""

COMPONENTS = ("DFE", "app", "orth", "skd")
"""What Table 2 of the paper switches on and off."""
_COMPONENT_TERMS = {"app": LOSS_GROUPS["app"], "orth": ("orth",), "skd": ("skd",)}


def flat(config: Any) -> dict[str, Any]:
    """Every value of a configuration (any dataclass of dataclasses) by its dotted key, like `loss.skd.weight`."""
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

    A term's own switch wins. A term whose own switch is None follows its group. The group `detail` whose switch is
    None is on whenever Z^D is built anyway: with the DFE module, or for a term of `app` or for `skd` (the row of
    Table 2 without DFE). A weight of 0 switches a term off.
    """
    group_of = {term: group for group, members in LOSS_GROUPS.items() for term in members}
    groups = {group: values[f"loss.{group}.enabled"] for group in LOSS_GROUPS}

    def is_on(name: str) -> bool:
        own = values[f"loss.{name}.enabled"]
        switched = (groups[group_of[name]] if name in group_of else True) if own is None else own
        return bool(switched) and values[f"loss.{name}.weight"] != 0

    if groups["detail"] is None:
        groups["detail"] = values["dfe.enabled"] or any(is_on(name) for name in (*LOSS_GROUPS["app"], "skd"))
    return {name: values[f"loss.{name}.weight"] for name in TERM_OPTIONS if is_on(name)}


def needs_detail(terms: Iterable[str]) -> bool:
    """Whether one of these terms reads Z^D, so that the detail branch is built."""
    return not set(_READ_DETAIL).isdisjoint(terms)


def needs_projection(terms: Iterable[str]) -> bool:
    """Whether one of these terms reads P or a feature computed with it, so that P is built."""
    return not set(_READ_PROJECTION).isdisjoint(terms)


def needs_fusion(terms: Iterable[str]) -> bool:
    """Whether one of these terms reads the fused feature Z_F^B, so that the fusion is built."""
    return not set(_READ_FUSED).isdisjoint(terms)


def components(values: Mapping[str, Any]) -> tuple[bool, bool, bool, bool]:
    """Which of `COMPONENTS` are on. `app` is on where one of its three terms is on."""
    terms = active_weights(values)
    on = {name: not set(members).isdisjoint(terms) for name, members in _COMPONENT_TERMS.items()}
    return bool(values["dfe.enabled"]) and needs_detail(terms), on["app"], on["orth"], on["skd"]


def variant_name(switches: Iterable[bool]) -> str:
    """The name of a row of Table 2 by what is on: `baseline` for nothing, `full` for all, else like `dfe_app`."""
    on = [name.lower() for name, is_on in zip(COMPONENTS, switches, strict=True) if is_on]
    return {0: "baseline", len(COMPONENTS): "full"}.get(len(on), "_".join(on))


def with_components(values: Mapping[str, Any], switches: Iterable[bool]) -> dict[str, Any]:
    """A copy of `values` with exactly these of `COMPONENTS` switched on.

    A component to be switched on whose terms all have a weight of 0, or are all switched off one by one, gets the
    schema's own values for these terms: nothing else says what "on" would be.
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
    """Every key that decides the weights of a run, with its full value; a key that changes nothing here is absent.

    The seed is absent too: it numbers the repetitions of one experiment. `dataset.name` ends in `-synthetic` for a
    tree that `bdlf.synthesize` has written, and `backbone.weights` is the SHA-256 of a file that is named there.
    """
    used: dict[str, Any] = {}

    def take(*keys: str) -> None:
        used.update((key, values[key]) for key in keys)

    _take_data(values, used)
    take("image.height", "image.width", "batch.identities", "batch.images")
    take("augment.flip", "augment.erase", "augment.exchange")
    used["augment.crop"] = bool(values["augment.crop"] and values["augment.pad"])
    if used["augment.crop"]:
        take("augment.pad")
    take("backbone.name", "backbone.weights", "backbone.last_stride", "backbone.pooling")
    if values["backbone.weights"] not in ("imagenet", "none"):
        used["backbone.weights"] = values["backbone.weights_sha256"]

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
    if "skd" in weights:  # delta is read by the stable form alone, gamma by the two others
        del used["loss.skd.gamma" if values["loss.skd.form"] == "stable" else "loss.skd.delta"]
    if not set(DISTILLATION).isdisjoint(weights):
        take("loss.ramp")

    take("optimizer.lr", "optimizer.backbone_scale", "optimizer.momentum", "optimizer.nesterov")
    take("optimizer.weight_decay", "optimizer.clip", "schedule.epochs", "schedule.steps_per_epoch", "ema.enabled")
    warmup = values["schedule.warmup_epochs"]
    used["schedule.warmup_epochs"] = warmup if warmup > 1 else 0  # one epoch of warm-up has the full rate
    reached = [max(milestone, warmup) for milestone in values["schedule.milestones"]]
    used["schedule.milestones"] = [milestone for milestone in reached if milestone < values["schedule.epochs"]]
    if values["ema.enabled"]:
        take("ema.decay")
    take("precision", "deterministic", "on_nonfinite")
    return used


def _take_data(values: Mapping[str, Any], used: dict[str, Any]) -> None:
    name = values["dataset.name"]
    used["dataset.name"] = f"{name}-synthetic" if values["dataset.drawn"] else name
    rules = values["selection"]
    holds_out = "validation" in (rules if isinstance(rules, list | tuple) else [rules])
    if holds_out:
        used["selection.validation"] = True
    keys = {
        "image.range": name != "synthetic" and not values["dataset.drawn"],  # drawn images have 8 bits
        "dataset.split": name == "regdb",
        "evaluation.holdout": holds_out and name != "sysu",  # SYSU-MM01 has validation identities of its own
        "dataset.seed": name == "synthetic" or (holds_out and name != "sysu"),
        **{f"dataset.synthetic.{one}": name == "synthetic" for one in _SYNTHETIC},
    }
    used.update((key, values[key]) for key, is_used in keys.items() if is_used)


_SYNTHETIC = ("train_identities", "test_identities", "images_per_identity")

_DECIDING = (
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
_NEVER = ("dataset.root", "dataset.follow_links", "dataset.drawn", "backbone.weights_sha256", "dfe.recompute")


def can_decide(key: str) -> bool:
    """Whether a key decides the weights of a run in some configuration; other keys are names, places and scoring."""
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
