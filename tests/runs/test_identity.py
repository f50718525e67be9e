"""What makes two configurations one experiment."""

from __future__ import annotations

import copy
import dataclasses
import json
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.active import components, flat, in_use, method_name, variant_name, with_components
from bdlf.config import Config, config_folder
from bdlf.methods import METHODS
from bdlf.reporting.recorded import _blank, values_of
from bdlf.runs import identity
from bdlf.runs.folder import read_config
from bdlf.runs.identity import dataset_id, run_group, run_hash, run_label, run_path, values_hash, with_facts
from bdlf.system.errors import InputError

GOLDEN = Path(__file__).with_name("golden_hashes.json")
GROUPS = (
    "method",
    "ema",
    "tracker",
    "variant",
    "precision",
    "dataset",
    "dfe",
    "beg",
    "equations",
    "backbone",
    "augment",
    "recipe",
)
VARIANTS = ("baseline", "dfe", "dfe_app", "dfe_skd", "app_orth_skd", "dfe_app_skd", "full")


@cache
def _composed(*groups: str) -> Config:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(groups)))


def composed(*overrides: str) -> Config:
    """The configuration as the command line composes it; plain keys are set afterwards, which is faster."""
    groups = [word for word in overrides if "/" in word.partition("=")[0] or word.partition("=")[0] in GROUPS]
    config = copy.deepcopy(_composed(*groups))
    for word in overrides:
        if word in groups:
            continue
        key, _, value = word.partition("=")
        *path, name = key.split(".")
        node = config
        for part in path:
            node = getattr(node, part)
        assert hasattr(node, name)
        setattr(node, name, yaml.safe_load(value))
    return config


def test_hashes_are_those_of_the_golden_file():
    """Whoever changes a default, or what counts, sees here which runs become other experiments.

    A new key belongs into `identity.NEUTRAL` with the value that changes nothing; then no line of the file changes.
    """
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) >= 20
    assert {words: run_hash(composed(*words.split())) for words in golden} == golden


SAME = [
    *("seed=3", "output=elsewhere", "devices=cpu", "threads=1", "tracker=none", "label=mine", "debug=true"),
    *("loss/fkl=on", "loss/detail=on", "dfe/stage=stage3", "dfe.blocks=6", "evaluation.batch=7", "evaluation.every=2"),
    *("data.cache_dir=x", "data.cache=host", "dataset.split=4", "dataset.root=/else", "variant=full", "dry_run=true"),
    *(
        "rerun=true",
        "sweep=x",
        "objective=mean_rank1",
        "from_run=y",
        "dataset.follow_links=true",
        "checkpoint.keep=3",
        "compile=default",
    ),
    *("dfe.recompute=true", "loss.skd.gamma=0.2", "evaluation.flip=false", "evaluation.feature=before_bn"),
    *("evaluation.direction=ir_to_vis", "evaluation.mode=all", "evaluation.holdout=0.5", "selection=best_on_test"),
    *("schedule.milestones=[8,11]", "schedule.milestones=[8,900]"),
]
OTHER = [
    *("dfe.stage=2", "loss/skd=off", "loss.skd.weight=0.5", "loss.skd.form=literal", "loss.skd.delta=0.1", "ema=off"),
    *("optimizer.lr=0.02", "image.width=48", "batch.images=2", "dataset.seed=1", "deterministic=true", "loss.ramp=0"),
    *("on_nonfinite=skip", "precision=bf16-mixed", "schedule.milestones=[]", "schedule.warmup_epochs=0"),
    *(
        "augment.pad=3",
        "augment.grey=0.5",
        "optimizer.clip=null",
        "optimizer.projection_scale=1",
        "selection=validation",
        "beg.init=kaiming",
    ),
]


def test_the_hash_is_of_what_decides_the_weights():
    full = run_hash(composed())
    for override in SAME:
        assert run_hash(composed(override)) == full, override
    hashes = {override: run_hash(composed(override)) for override in OTHER}
    assert len({full, *hashes.values()}) == len(OTHER) + 1, hashes


def test_every_key_is_known_to_count_or_not_to_count():
    """A key that is added to the schema must be sorted into one of the two, here and in the rule."""
    everything = {*in_use(flat(composed("dataset=regdb", "selection=validation"))), *in_use(flat(composed()))}
    everything |= set(in_use(flat(composed("loss.skd.form=literal"))))
    for method in METHODS:
        everything |= set(in_use(flat(composed(f"method={method}"))))
    everything -= {"selection.validation"}
    left_out = set(flat(Config())) - everything
    assert left_out == {
        *(
            "method.terms",
            "dataset.root",
            "dataset.silhouettes",
            "dataset.follow_links",
            "dataset.drawn",
            "backbone.weights_sha256",
            "dfe.recompute",
        ),
        *("data.cache_dir", "data.cache", "selection", "compile", "devices", "threads", "seed", "variant", "label"),
        *("output", "sweep", "objective", "from_run", "dry_run", "rerun", "debug", "recipe"),
        *(key for key in left_out if key.startswith(("tracker.", "checkpoint."))),
        *(f"evaluation.{key}" for key in ("every", "batch", "flip", "feature", "mode", "shots", "direction")),
        *("evaluation.gallery", "evaluation.reading"),
        *(key for key in left_out if key.startswith("loss.") and key.endswith(".enabled")),
    }


def test_what_is_not_used_does_not_count():
    for switch, unused in [
        ("ema=off", "ema.decay=0.5"),
        ("loss/skd=off", "loss.skd.delta=0.1"),
        ("augment.crop=false", "augment.pad=9"),
        ("loss.skd.form=literal", "loss.skd.delta=0.5"),
        ("schedule.warmup_epochs=0", "schedule.warmup_epochs=1"),
    ]:
        assert run_hash(composed(switch)) == run_hash(composed(switch, unused)) != run_hash(composed()), unused
    assert run_hash(composed("augment.crop=false")) == run_hash(composed("augment.pad=0")), "nothing is cropped"
    for erasing in ("augment.erase_area=[0.2,0.8]", "augment.erase_fill=zero"):
        assert run_hash(composed(erasing)) == run_hash(composed()), "nothing is erased"
        assert run_hash(composed("augment=caj", erasing)) != run_hash(composed("augment=caj")), erasing
    for unused in ("dfe.stage=1", "dfe.blocks=2", "dfe.scale=exp", "loss.skd.delta=0.1"):
        assert run_hash(composed("variant=baseline")) == run_hash(composed("variant=baseline", unused)), unused
    no_p = [f"loss/{term}=off" for term in ("app", "cmf", "id_base", "bkl", "orth", "skd")]
    for unused in ("beg.init=kaiming", "beg.fusion_scaled=false", "optimizer.projection_scale=1"):
        assert run_hash(composed(*no_p)) == run_hash(composed(*no_p, unused)), unused
    only_id = [*no_p, "dfe=off", "loss/tri=off", "loss/okl=off"]
    assert run_hash(composed(*only_id)) == run_hash(composed(*only_id, "loss.ramp=0.1")), "nothing is ramped"
    assert run_hash(composed("loss/cmf=off")) == run_hash(composed("loss/cmf=off", "beg.fusion_scaled=false"))
    assert run_hash(composed("variant=app_orth_skd")) != run_hash(composed("variant=app_orth_skd", "dfe.stage=2"))
    assert run_hash(composed("loss.skd.weight=0", "loss.orth.weight=0")) == run_hash(composed("variant=dfe_app"))


def test_the_range_of_grey_values_counts_for_sets_of_files_and_its_default_changes_no_hash(monkeypatch):
    for words in (["dataset=regdb"], ["dataset=regdb", "dataset.drawn=true"], ["dataset=synthetic"]):
        hashes = [run_hash(composed(*words, f"image.range={one}")) for one in ("file", "set", "full")]
        assert len(set(hashes)) == (3 if words == ["dataset=regdb"] else 1), "drawn images have 8 bits"
        with monkeypatch.context() as patch:  # as before the key existed
            used = {key: value for key, value in in_use(flat(composed(*words))).items() if key != "image.range"}
            patch.setattr(identity, "in_use", lambda _, used=used: used)
            assert run_hash(composed(*words)) == hashes[0]


def test_held_out_identities_count_where_they_are_drawn():
    for dataset, draws in {"regdb": True, "llcm": True, "sysu": False}.items():
        for option in ("dataset.seed=1", "evaluation.holdout=0.5"):
            pair = [composed(f"dataset={dataset}", "selection=validation", *more) for more in ([], [option])]
            assert (run_hash(pair[0]) != run_hash(pair[1])) == draws, "SYSU-MM01 has its own identities to hold out"
        assert run_hash(composed(f"dataset={dataset}")) == run_hash(composed(f"dataset={dataset}", "dataset.seed=1"))
    assert run_hash(composed("selection=[last_epoch,validation]")) == run_hash(composed("selection=validation"))


def test_a_changed_default_of_the_schema_changes_the_hash_and_a_key_at_its_neutral_value_does_not(monkeypatch):
    values = flat(composed())
    before = values_hash(values)
    assert values_hash({**values, "loss.ramp": 0.5}) != before, "whatever the schema's default is"
    monkeypatch.setitem(identity.NEUTRAL, "loss.ramp", 0.5)
    without = values_hash({**values, "loss.ramp": 0.5})
    monkeypatch.setattr(
        identity, "in_use", lambda values: {k: v for k, v in in_use(values).items() if k != "loss.ramp"}
    )
    assert values_hash({**values, "loss.ramp": 0.5}) == without, "as before the key existed"
    monkeypatch.setattr(identity, "in_use", in_use)
    assert len({without, values_hash({**values, "loss.ramp": 0.3}), values_hash({**values, "loss.ramp": 0.0})}) == 3


def test_a_recorded_configuration_that_is_older_than_a_key_has_its_neutral_value(monkeypatch, tmp_path):
    text = OmegaConf.to_yaml(OmegaConf.structured(composed())).replace("  mask_own_identity: false\n", "")
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setitem(identity.NEUTRAL, "dfe.mask_own_identity", True)
    _blank.cache_clear()
    assert read_config(tmp_path / "config.yaml").dfe.mask_own_identity
    assert values_of(yaml.safe_load(text), "x")["dfe.mask_own_identity"]
    _blank.cache_clear()


def test_whole_numbers_may_have_lost_their_point():
    values = flat(composed())
    assert values_hash(values | {"loss.skd.weight": 1, "image.height": 64.0}) == values_hash(values)
    assert values_hash(values | {"augment.crop": True, "batch.images": 1}) != values_hash(values)


def test_a_synthesized_tree_is_another_dataset_than_the_real_one(tmp_path):
    real = composed("dataset=regdb", f"dataset.root={tmp_path}", f"output={tmp_path}/out")
    before = run_hash(real), run_path(real), run_group(real)
    assert dataset_id(real.dataset) == "regdb" and run_path(real).parts[-3] == "regdb"
    (tmp_path / "synthetic.json").write_text("{}")
    assert dataset_id(real.dataset) == "regdb-synthetic" and run_path(real).parts[-3] == "regdb-synthetic"
    assert not {run_hash(real), run_group(real)} & {*before}
    recorded = with_facts(real)
    (tmp_path / "synthetic.json").unlink()
    assert run_hash(recorded) == values_hash(flat(recorded)) != before[0], "a recorded configuration needs no disk"
    assert dataset_id(recorded.dataset) == run_path(recorded).parts[-3] == "regdb-synthetic"
    assert run_group(recorded).startswith("full-") and run_group(recorded) != before[2]
    with pytest.raises(InputError, match=r"^dataset.drawn=true, but the tree at .* was not written by bdlf.synthesize"):
        with_facts(recorded)


def test_weights_from_a_file_count_by_their_content(tmp_path):
    for name, content in {"a": b"1", "b": b"1", "c": b"2"}.items():
        (tmp_path / name).write_bytes(content)
    one, same, two = (composed(f"backbone.weights={tmp_path}/{name}") for name in "abc")
    assert run_hash(one) == run_hash(same) != run_hash(two)
    recorded = with_facts(one)
    (tmp_path / "a").write_bytes(b"other")
    with pytest.raises(InputError, match=r"is not the file that backbone\.weights_sha256 records"):
        with_facts(recorded)
    (tmp_path / "a").unlink()
    assert run_hash(recorded) == run_hash(same), "a recorded configuration needs no disk"
    for path, part in {tmp_path: "is not a file", tmp_path / "a": "cannot be read"}.items():
        with pytest.raises(InputError, match=part):
            run_hash(composed(f"backbone.weights={path}"))
    with pytest.raises(InputError, match="does not record"):
        values_hash(flat(one))


def test_the_group_in_wandb_is_the_experiment_without_seed_and_split():
    base = composed("dataset=regdb")
    group = run_group(base)
    assert group.startswith("full-") and len(group) == len("full-") + 8
    for same in ("seed=4", "dataset.split=7"):
        assert run_group(composed("dataset=regdb", same)) == group
    for other in ("loss/skd=off", "optimizer.lr=0.02"):
        assert run_group(composed("dataset=regdb", other)) != group


def test_another_method_is_never_called_a_row_of_table_2():
    for method in ("agw", "caj", "lupi"):
        config = composed(f"method={method}")
        assert run_label(config) == method_name(flat(config)) == method


def test_a_published_recipe_stands_in_the_label_and_its_values_alone_in_the_hash():
    for method, label in {"agw": "agw-published", "bdlf": "full-published"}.items():
        config = composed(f"method={method}", "recipe=published")
        assert run_label(config) == label
        assert run_hash(config) == run_hash(dataclasses.replace(config, recipe="shared"))
        assert run_hash(config) != run_hash(composed(f"method={method}"))
    assert run_label(composed("recipe=published", "variant=dfe", "dfe.stage=2")) == "dfe-stage2-published"


def test_labels_say_what_is_on():
    for words, label in {
        "variant=dfe_app dfe.stage=2 dfe.blocks=4": "dfe_app-stage2-blocks4",
        "variant=baseline dfe.stage=2": "baseline",
        "loss/skd=off": "dfe_app_orth",
        "loss.skd.weight=0 loss.orth.weight=0": "dfe_app",
        "variant=app_orth_skd dfe.stage=2 dfe.blocks=4": "app_orth_skd-stage2",
        "label=mine dfe.stage=2": "mine",
    }.items():
        assert run_label(composed(*words.split())) == label
    with pytest.raises(InputError, match="label='a b'"):
        run_label(dataclasses.replace(composed(), label="a b"))


def test_the_rows_of_table_2_are_reached_from_each_other_whatever_switched_them_off():
    rows = {name: flat(composed(f"variant={name}")) for name in VARIANTS}
    switches = {name: components(values) for name, values in rows.items()}
    assert [variant_name(switches[name]) for name in VARIANTS] == list(VARIANTS)
    for start, goal in product(VARIANTS, VARIANTS):
        assert values_hash(with_components(rows[start], switches[goal])) == values_hash(rows[goal]), (start, goal)
    by_weight = flat(composed("loss.skd.weight=0", "loss.orth.weight=0"))
    one_by_one = flat(composed("variant=dfe_app", "loss/fkl=off", "loss/dkl=off", "loss/dcorr=off"))
    for values in (by_weight, one_by_one):
        assert values_hash(with_components(values, switches["full"])) == values_hash(rows["full"])
    partly = flat(composed("loss/fkl=off", "loss.skd.weight=0.5"))
    again = with_components(with_components(partly, switches["baseline"]), switches["full"])
    assert values_hash(again) == values_hash(partly) != values_hash(rows["full"]), "what differs stays"
