"""Every option of every group, the published recipes, and what is refused."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bdlf.active import LOSS_GROUPS, active_weights, flat
from bdlf.commandline.words import explain
from bdlf.config import Config, config_folder, terms_in

CONF = config_folder("conf")
OPTIONS = sorted(
    f"{file.parent.relative_to(CONF).as_posix()}={file.stem}"
    for file in CONF.rglob("*.yaml")
    if file.parent != CONF and not {CONF / "on_disk", CONF / "parts"} & set(file.parents)
) + [f"sweeps={file.stem}" for file in sorted(config_folder("sweeps").glob("*.yaml"))]

ALL = [
    "id",
    "tri",
    "okl",
    "id_detail",
    "odkl",
    "id_base",
    "bkl",
    "id_fused",
    "fbkl",
    "fkl",
    "dkl",
    "dcorr",
    "orth",
    "skd",
]
OTHERS = [
    *("wrt", "sqd", "tri_dual", "colour_free", "cpm", "ort", "id_parts", "tri_middle", "dcl"),
    *("id_shape", "id_erased", "kl_erased", "related", "ortho"),
]
"""Terms of other methods than the paper's."""
BASELINE = ["id", "tri", "okl", "id_base", "bkl", "id_fused", "fbkl"]
DETAIL = ["id_detail", "odkl"]
APP = ["fkl", "dkl", "dcorr"]


@cache
def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_object(compose("config", list(overrides)))


def terms(*overrides: str) -> set[str]:
    config = composed(*overrides)
    return set(active_weights(flat(config)))


def test_the_groups_of_the_design_are_all_there():
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups >= {
        *("dataset", "backbone", "dfe", "dfe/stage", "dfe/blocks", "beg", "augment", "schedule", "ema", "tracker"),
        *("precision", "variant", "sweeps"),
        *(f"loss/{name}" for name in (*ALL, *LOSS_GROUPS)),
    }
    assert len(OPTIONS) > 80


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_says_what_it_is_for(option):
    group, name = option.split("=")
    composed(option)
    folder = config_folder("sweeps") if group == "sweeps" else CONF / group
    lines = (folder / f"{name}.yaml").read_text().splitlines()
    comments = [line for line in lines if line.startswith("# ") and "@package" not in line]
    assert comments and len(comments[0]) > 12, f"{option} does not say what it is for"
    assert all("@package" not in line for line in lines[1:]), "Hydra ignores @package unless it is the first line"


@pytest.mark.parametrize(
    ("dataset", "milestones", "folder"),
    [("sysu", [20, 95, 180], "SYSU-MM01"), ("regdb", [70, 130, 180], "RegDB"), ("llcm", [70, 130, 180], "LLCM")],
)
def test_the_papers_recipe(dataset, milestones, folder, monkeypatch):
    monkeypatch.delenv("BDLF_DATA", raising=False)
    config = composed(f"dataset={dataset}")
    assert (config.image.height, config.image.width) == (384, 144)
    assert (config.batch.identities, config.batch.images) == (8, 4)
    assert (config.schedule.epochs, config.schedule.steps_per_epoch, config.schedule.warmup_epochs) == (220, None, 10)
    assert config.schedule.milestones == milestones
    assert dataclasses.asdict(config.optimizer) == {
        "lr": 0.1, "backbone_scale": 0.1, "projection_scale": 0.1, "momentum": 0.9, "nesterov": True,
        "weight_decay": 5e-4, "clip": 10.0,
    }  # fmt: skip
    assert dataclasses.asdict(config.augment) == {
        "crop": True, "pad": 10, "flip": 0.5, "erase": 0.5, "exchange": 0.5, "erase_area": [0.02, 0.4],
        "erase_fill": "caj", "grey": 0.0,
    }  # fmt: skip
    assert dataclasses.asdict(config.backbone) == {
        "name": "resnet50", "weights": "imagenet", "weights_sha256": None, "last_stride": 1, "pooling": "gem",
    }  # fmt: skip
    assert (config.dfe.enabled, config.dfe.stage, config.dfe.blocks) == (True, 3, 6)
    assert (config.ema.enabled, config.ema.decay, config.precision) == (True, 0.999, "32-true")
    assert active_weights(flat(config)) == dict.fromkeys(ALL, 1.0)
    assert config.loss.tri.margin == 0.3 and config.loss.dcorr.gamma == 1.01 and config.loss.skd.delta == 0.01
    assert config.dataset.root == f"data/{folder}"
    monkeypatch.setenv("BDLF_DATA", "/somewhere")
    composed.cache_clear()
    assert composed(f"dataset={dataset}").dataset.root == f"/somewhere/{folder}"


def test_literal_equations_are_the_printed_ones():
    literal = composed("equations=literal", "dataset=synthetic")
    assert (literal.dfe.scale, literal.dfe.init, literal.dfe.attention_scaled) == ("exp", "default", False)
    assert (literal.beg.fusion_scaled, literal.beg.fusion_zero_value) == (False, False)
    assert (literal.loss.ramp, literal.loss.fkl.form, literal.loss.skd.form) == (0.0, "raw", "literal")
    assert (literal.optimizer.lr, literal.optimizer.projection_scale, literal.optimizer.clip) == (0.1, 1.0, None)


def test_stable_is_what_the_schema_says():
    schema, stable = Config(), composed("dataset=regdb")
    for part in ("dfe", "beg"):
        assert getattr(stable, part) == getattr(schema, part)
    assert (stable.loss.ramp, stable.optimizer) == (schema.loss.ramp, schema.optimizer)
    assert all(option == getattr(schema.loss.skd, name) for name, option in vars(stable.loss.skd).items())


TABLE_2 = {
    "baseline": BASELINE,
    "dfe": BASELINE + DETAIL,
    "dfe_app": BASELINE + DETAIL + APP,
    "dfe_skd": [*BASELINE, *DETAIL, "skd"],
    "app_orth_skd": [*BASELINE, *DETAIL, *APP, "orth", "skd"],
    "dfe_app_skd": [*BASELINE, *DETAIL, *APP, "skd"],
    "full": ALL,
}


@pytest.mark.parametrize("variant", TABLE_2)
def test_rows_of_table_2(variant):
    config = composed(f"variant={variant}")
    assert set(active_weights(flat(config))) == set(TABLE_2[variant])
    assert config.dfe.enabled == (variant not in ("baseline", "app_orth_skd"))
    assert config.variant == variant


def test_table_2_sweep_runs_the_seven_rows():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("config", ["sweeps=table2"], return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    assert hydra.sweeper.params.variant.split(",") == list(TABLE_2)


def test_stage_and_blocks_by_value_and_by_option():
    for (stage, blocks), overrides in {
        (2, 4): ["dfe.stage=2", "dfe.blocks=4"],
        (1, 8): ["dfe/stage=stage1", "dfe/blocks=blocks8"],
        (4, 6): ["dfe/stage=stage2", "dfe.stage=4"],  # the value wins
    }.items():
        dfe = composed(*overrides).dfe
        assert (dfe.stage, dfe.blocks) == (stage, blocks)


def test_single_terms_and_groups():
    assert terms("loss/skd=off") == set(ALL) - {"skd"}
    assert terms("loss.skd.weight=0") == set(ALL) - {"skd"}
    assert terms("loss/app=off") == set(ALL) - set(APP)
    assert terms("loss/app=off", "loss/fkl=on") == set(ALL) - {"dkl", "dcorr"}
    assert terms("loss/cmf=off", "loss/fbkl=on") == set(ALL) - {"id_fused"}
    assert terms("variant=dfe_app", "loss/skd=on") == set(TABLE_2["dfe_app_skd"])  # the command line wins
    config = composed("loss.skd.weight=0.5")
    assert active_weights(flat(config))["skd"] == 0.5


def test_detail_terms_follow_what_builds_the_detail_feature():
    off = ["loss/app=off", "loss/skd=off", "loss/orth=off"]
    assert terms("dfe=off", *off) == set(BASELINE)
    assert terms("dfe=on", *off) == set(BASELINE + DETAIL)
    assert terms("dfe=off", *off, "loss/dcorr=on") == {*BASELINE, *DETAIL, "dcorr"}
    assert terms("dfe=off", *off, "loss/detail=on") == set(BASELINE + DETAIL)
    assert terms("loss/detail=off") == set(ALL) - set(DETAIL)
    assert terms("loss/odkl=off") == set(ALL) - {"odkl"}


def test_terms_of_the_schema_are_the_terms_of_the_objective():
    from bdlf.terms import TERMS

    assert list(terms_in(Config().loss)) == list(TERMS) == ALL + OTHERS
    for name, term in terms_in(Config().loss).items():
        options = {key: value for key, value in vars(term).items() if key not in ("enabled", "weight")}
        assert options == TERMS[name].options, f"defaults of {name} differ between schema and function"


def test_the_augmentation_has_the_defaults_of_the_schema():
    from bdlf.data.augment import Augmentation

    built = Augmentation(**dataclasses.asdict(Config().augment))
    assert dataclasses.replace(built, erase_area=tuple(built.erase_area)) == Augmentation()


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("dfe.stge=3", ["'dfe.stge'", "did you mean 'dfe.stage'"]),
        ("nonsense.deep=3", ["'nonsense.deep'", "dataset", "seed"]),
        ("dfe/stage=stage9", ["'stage9'", "'dfe/stage'", "stage1, stage2, stage3, stage4"]),
        ("dataset=market", ["'market'", "llcm, regdb, synthetic, sysu"]),
        ("optimizer.lr=fast", ["optimizer.lr", "'fast'", "Float"]),
        ("dfe.blocks=2.5", ["dfe.blocks", "Integer"]),
        ("loss.skd.enabled=perhaps", ["loss.skd.enabled", "perhaps"]),
    ],
)
def test_mistakes_are_explained_in_one_line(override, parts):
    with pytest.raises(Exception) as caught:
        composed(override)
    line = explain(caught.value, Config)
    assert "\n" not in line
    assert all(part in line for part in parts), line


def test_weights_are_known_by_their_content(tmp_path):
    from bdlf.runs.identity import run_hash

    for name, content in {"a": b"one", "b": b"one", "c": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    one, same, two = (run_hash(composed(f"backbone.weights={tmp_path}/{name}")) for name in "abc")
    assert one == same != two


def test_every_yaml_is_reached():
    """A file that no group option names would never be read."""
    primary = {file.stem for file in CONF.glob("*.yaml")}
    assert primary == {"config", "synthesize", "benchmark"}
    assert {file.stem for file in (CONF / "on_disk").glob("*.yaml")} == {"evaluate", "check", "probe", "visualize"}
    assert {file.stem for file in (CONF / "on_disk/dataset").glob("*.yaml")} == {"sysu", "regdb", "llcm", "synthetic"}
    groups = {option.split("=")[0] for option in OPTIONS}
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    listed = {key for entry in defaults if OmegaConf.is_dict(entry) for key in entry}
    assert groups == {key for key in listed if not key.startswith("override ")}


@pytest.mark.parametrize("name", ["sysu", "regdb", "llcm", "synthetic"])
def test_every_command_finds_a_dataset_in_the_same_place(name, monkeypatch):
    monkeypatch.setenv("BDLF_DATA", "/data")
    trained = composed.__wrapped__(f"dataset={name}").dataset  # not one composed in another environment
    for command in ("evaluate", "check", "probe", "visualize"):
        with initialize_config_dir(str(CONF / "on_disk"), version_base="1.3"):
            source = OmegaConf.to_object(compose(command, [f"dataset={name}"])).dataset
        assert (source.name, source.root) == (trained.name, trained.root)
        assert (source.root or "/data").startswith("/data")
