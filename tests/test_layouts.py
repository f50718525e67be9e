"""Trees in each real layout, written by `synthesize`, are trained on for an epoch and scored in every setting."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from bdlf.data import listing
from bdlf.data.synthetic.layouts import write_layout

SCORED = {
    "sysu": [("ir_to_vis", "all", 1, "agw", None, 10), ("ir_to_vis", "indoor", 1, "agw", None, 10)],
    "regdb": [("ir_to_vis", None, None, "all", None, 1), ("vis_to_ir", None, None, "all", None, 1)],
    "llcm": [("ir_to_vis", None, 1, "agw", "paper", 10), ("vis_to_ir", None, 1, "agw", "paper", 10)],
}
SMALL = [
    *("backbone=resnet10", "image.height=32", "image.width=16", "batch.identities=2", "batch.images=2", "dfe.blocks=1"),
    *("schedule.epochs=1", "optimizer.lr=0.01", "tracker=none", "devices=cpu", "threads=1"),
]


@pytest.fixture
def on_files(command, tmp_path):
    def run(layout: str, *overrides: str) -> tuple[int, str, str]:
        root = tmp_path / f"camera 3 {layout}"
        if not root.exists():
            size = ["identities=12", "images=3", "height=48", "width=24"]
            code, out, err = command("synthesize", f"layout={layout}", f"root='{root}'", *size)
            assert code == 0, err
            assert f"{layout}-synthetic" in out and (root / "synthetic.json").is_file()
        where = [
            f"dataset={layout}",
            f"dataset.root='{root}'",
            f"output={tmp_path}/out",
            f"data.cache_dir={tmp_path}/cache",
        ]
        return command("train", *where, *SMALL, *overrides)

    return run


@pytest.mark.parametrize("layout", SCORED)
def test_an_epoch_on_each_layout(on_files, tmp_path, layout):
    code, _, err = on_files(layout)
    assert code == 0, err
    (path,) = tmp_path.glob(f"out/{layout}-synthetic/*/seed0/result.json")
    result = json.loads(path.read_text())
    assert result["dataset"] == f"{layout}-synthetic"
    keys = ("direction", "mode", "shots", "gallery", "reading")
    rows = [(*(row[key] for key in keys), len(row["trials"])) for row in result["metrics"] if row["model"] == "ema"]
    assert sorted(rows, key=str) == sorted(SCORED[layout], key=str)
    for row in result["metrics"]:
        assert row["dataset"] == f"{layout}-synthetic" and row["split"] == (1 if layout == "regdb" else None)
        trials = [trial["rank1"] for trial in row["trials"]]
        assert row["mean"]["rank1"] == pytest.approx(np.mean(trials))
        if len(trials) > 1:
            assert row["std"]["rank1"] == pytest.approx(np.std(trials, ddof=1))
        else:
            assert row["std"] is None


def test_validation_on_sysu_searches_what_its_identities_were_seen_by(on_files, tmp_path):
    code, out, err = on_files("sysu", "selection=validation")
    assert code == 0, err
    (path,) = tmp_path.glob("out/sysu-synthetic/*/seed0/result.json")
    result, curves = json.loads(path.read_text()), pd.read_csv(path.with_name("metrics.csv"))
    assert {column for column in curves if column.startswith("rank1/val-")} == {
        f"rank1/val-ir_to_vis-all-1-shot-agw/{model}" for model in ("ema", "raw")
    }, "cameras 1 and 2 saw none of them"
    assert {row["mode"] for row in result["metrics"] if row["selection"] == "validation"} == {"all", "indoor"}
    assert (result["trained_identities"], result["held_out_identities"]) == (7, 2)
    assert "trained on 7 of 9 identities" in out


def _text_named_jpg(root):
    next(root.rglob("*.jpg")).write_text("no image")


def _truncated(root):
    file = next(root.rglob("*.jpg"))
    file.write_bytes(file.read_bytes()[:200])


def _camera_gone(root):
    shutil.rmtree(root / "cam5")


def _split_file_gone(root):
    (root / "exp" / "test_id.txt").unlink()


def _split_file_wrong(root):
    (root / "exp" / "train_id.txt").write_text("1,2,three\n")


def _identity_without_infrared(root):
    first = (root / "exp" / "train_id.txt").read_text().split(",")[0]
    for camera in ("cam3", "cam6"):
        shutil.rmtree(root / camera / f"{int(first):04d}", ignore_errors=True)


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_text_named_jpg, [".jpg"]),
        (_truncated, [".jpg"]),
        (_camera_gone, ["cam5"]),
        (_split_file_gone, ["test_id.txt"]),
        (_split_file_wrong, ["train_id.txt", "three"]),
        (_identity_without_infrared, ["infrared"]),
    ],
)
def test_damaged_trees_are_one_line_that_names_the_file(on_files, tmp_path, damage, parts):
    assert on_files("sysu", "dry_run=true")[0] == 0
    damage(tmp_path / "camera 3 sysu")
    code, _, err = on_files("sysu")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert all(part in err for part in parts), err
    assert not list(tmp_path.rglob("last.pt")) and not list(tmp_path.glob("cache/*.npy"))


def test_too_few_identities_for_a_batch(on_files):
    code, _, err = on_files("regdb", "batch.identities=50")
    assert code == 2 and "50 identities" in err and err.count("\n") == 1


def test_synthesize_refuses(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    for arguments, part in {
        ("layout=market", f"root={tmp_path}/x"): "market",
        ("layout=regdb", f"root={tmp_path}/mine"): "mine",
        ("layout=regdb",): "root",
        ("layout=regdb", f"root={tmp_path}/x", "identities=1"): "identities=1",
    }.items():
        code, _, err = command("synthesize", *arguments)
        assert code == 2 and part in err and err.count("\n") == 1, err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep me" and not (tmp_path / "x").exists()


@pytest.mark.parametrize("layout", SCORED)
def test_the_smallest_tree_is_read_back(tmp_path, layout):
    for seed in range(4):
        write_layout(layout, tmp_path / str(seed), seed=seed, identities=4, images=1, height=16, width=8)
        table = listing(layout, tmp_path / str(seed))
        assert set(table["split"]) >= {"train", "test"} and set(table["modality"]) == {"vis", "ir"}


def test_splits_of_regdb_are_collated_and_never_swapped(on_files, command, tmp_path):
    for split in (1, 2, 3):
        code, _, err = on_files("regdb", f"dataset.split={split}")
        assert code == 0, err
    runs = sorted((tmp_path / "out" / "regdb-synthetic").glob("*/seed0"))
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    assert len(runs) == 3 and len({result["fingerprint"] for result in results}) == 3
    assert sorted(result["metrics"][0]["split"] for result in results) == [1, 2, 3]
    code, _, err = on_files("regdb", "dataset.split=11")
    assert code == 2 and "11" in err and err.count("\n") == 1

    code, out, err = command("evaluate", f"splits={tmp_path}/out/regdb-synthetic/*/seed0", f"output={tmp_path}/mean")
    assert code == 0 and "4, 5, 6, 7, 8, 9, 10 missing" in out, err
    mean = json.loads((tmp_path / "mean" / "result.json").read_text())
    assert mean["splits"] == [1, 2, 3] and "mean over splits 1, 2, 3" in out
    code, out, err = command("evaluate", f"splits={runs[1]}", f"output={tmp_path}/of_one")
    of_one = json.loads((tmp_path / "of_one" / "result.json").read_text())
    assert code == 0 and of_one["metrics"] == mean["metrics"], "a run stands for its siblings in the other splits"
    more = {**results[0], "metrics": [*results[0]["metrics"], {**results[0]["metrics"][0], "flip": False}]}
    (runs[0] / "result.json").write_text(json.dumps(more))
    code, out, err = command("evaluate", f"splits={runs[1]}", f"output={tmp_path}/of_one")
    of_one = json.loads((tmp_path / "of_one" / "result.json").read_text())
    assert code == 0 and of_one["metrics"] == mean["metrics"], "a scoring that one split alone has is left out"
    assert "flip=False: not every split" in out or results[0]["metrics"][0]["split"] != 1
    (runs[0] / "result.json").write_text(json.dumps(results[0]))
    assert mean["fingerprints"] == [
        one["fingerprint"] for one in sorted(results, key=lambda one: one["metrics"][0]["split"])
    ]
    assert mean["run_commits"] == [results[0]["commit"]] and all(one[:8] in out for one in mean["fingerprints"])
    assert command("evaluate", f"splits={tmp_path}/out/regdb-synthetic/*/seed0")[0] == 0
    (beside,) = (tmp_path / "out" / "regdb-synthetic").glob("evaluations/*/result.json")
    assert (
        beside.parent.name.rpartition("-")[0] == mean["label"]
        and json.loads(beside.read_text())["metrics"] == mean["metrics"]
    )
    for index, row in enumerate(mean["metrics"]):
        values = [result["metrics"][index]["mean"]["mAP"] for result in results]
        assert row["mean"]["mAP"] == pytest.approx(np.mean(values)) and len(set(values)) > 1
        assert row["std"]["mAP"] == pytest.approx(np.std(values, ddof=1)) and row["split"] is None
        assert sorted(trial["mAP"] for trial in row["trials"]) == sorted(values)
        assert row["queries"] == sum(result["metrics"][index]["queries"] for result in results)

    second = next(run for run, result in zip(runs, results, strict=True) if result["metrics"][0]["split"] == 2)
    code, _, err = command("evaluate", f"run={second}", "dataset.split=1", "devices=cpu")
    assert code == 2 and "was trained on split 2" in err and "one model for each split" in err
    assert on_files("regdb", "seed=1")[0] == 0
    for wrong, part in {
        f"[{second},{second.parent}/../*/seed1]": "differ in more than their split",
        f"[{tmp_path}/out/regdb-synthetic/*/seed?]": "second run of split 1",
        f"{tmp_path}": "config.yaml does not exist",
    }.items():
        code, _, err = command("evaluate", f"splits='{wrong}'" if "[" not in wrong else f"splits={wrong}")
        assert code == 2 and part in err and err.count("\n") == 1, err


def test_features_of_other_code_on_sysus_tree(command, tmp_path):
    """Only the test half matters, and only its names: no image is opened, what else is wrong is a warning."""
    root = tmp_path / "cam3 cam12" / "SYSU-MM01"
    write_layout("sysu", root, identities=12, images=11, height=16, width=8)
    test = listing("sysu", root).query("split == 'test'")
    centre = np.random.default_rng(0).normal(size=(test["pid"].max() + 1, 6))
    noise = np.random.default_rng(1).normal(size=(len(test), 6))
    order = np.random.default_rng(2).permutation(len(test))
    features = (centre[test["pid"]] + 0.7 * noise)[order]
    names = {"pids": "pid", "camids": "camid"}
    np.savez(
        tmp_path / "theirs.npz",
        features=features,
        modalities=test["modality"].to_numpy(dtype=str)[order],
        paths=test["path"].to_numpy(dtype=str)[order],
        **{name: test[column].to_numpy()[order] for name, column in names.items()},
    )

    def scored(*asked: str) -> tuple[list[dict], str]:
        where = [f"features={tmp_path}/theirs.npz", "dataset=sysu", f"dataset.root='{root}'", f"output={tmp_path}/out"]
        code, out, err = command("evaluate", *where, *asked)
        assert code == 0, err
        return json.loads((tmp_path / "out" / "result.json").read_text())["metrics"], out

    intact = {}
    for shots, gallery in ((1, "agw"), (1, "official"), (10, "official")):
        asked = (f"evaluation.shots={shots}", f"evaluation.gallery={gallery}")
        intact[asked], out = scored(*asked)
        assert [(row["mode"], row["shots"], row["gallery"], len(row["trials"])) for row in intact[asked]] == [
            ("all", shots, gallery, 10),
            ("indoor", shots, gallery, 10),
        ]
        assert "warning" not in out and "-synthetic" in out
    assert len({str(rows) for rows in intact.values()}) == 3

    (root / test["path"].iloc[0]).write_bytes(b"")  # the rest was drawn from the names
    (root / test["path"].iloc[1]).parent.joinpath("Thumbs.db").write_bytes(b"stray")
    (root / "cam1" / "Thumbs.db").write_bytes(b"stray")
    shutil.rmtree(next(path for path in root.glob("cam[36]/*") if int(path.name) not in set(test["pid"])))
    (root / "exp" / "val_id.txt").unlink()
    for asked, rows in intact.items():
        damaged, out = scored(*asked)
        assert "fingerprint unknown (not every image is there)" in out
        assert damaged == rows
        assert all(part in out for part in ("1 of", "are empty files", "missing", "val_id.txt", "bdlf.check"))
