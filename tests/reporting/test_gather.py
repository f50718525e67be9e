"""What is read from run folders, and what becomes of folders that cannot be read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import bdlf
from bdlf.reporting.families import TABLES
from bdlf.reporting.gather import gather
from bdlf.reporting.tables import blocks_of
from bdlf.system.errors import InputError


def test_the_group_is_the_configuration_less_seed_and_split(fabricate, configured, tmp_path):
    for seed, split in ((0, 1), (1, 1), (0, 2)):
        fabricate(configured(dataset__name="regdb", dataset__split=split, seed=seed))
    fabricate(configured(dataset__name="regdb", dfe__blocks=2))
    groups = gather([tmp_path]).frame.groupby("group").size()
    assert sorted(groups) == [1, 3]


def test_the_package_gathers_from_another_working_directory(fabricate, configured, tmp_path, monkeypatch):
    paths = [str(fabricate(configured(seed=seed))) for seed in (0, 1, 2)]
    Path(paths[2], "result.json").write_text("{")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    with pytest.warns(UserWarning, match="seed2/result.json is not a readable JSON") as warned:
        frame = bdlf.gather("../outputs")
    assert frame["path"].tolist() == paths[:2] and len(warned) == 1
    assert bdlf.gather([Path("../outputs", *Path(path).parts[-3:]) for path in paths[:2]]).equals(frame)


def test_folders_that_cannot_be_read_stop_no_other(table2, fabricate, configured, tmp_path):
    shutil.copytree(table2["dfe", 0], tmp_path / "outputs" / "copied")
    result = table2["full", 0] / "result.json"
    result.write_text(result.read_text()[:-40])
    older = table2["full", 1] / "result.json"
    older.write_text(older.read_text().replace('"schema": 2', '"schema": 1'))
    (table2["dfe_app", 0] / "config.yaml").write_text("label: ${oc.env:HOME}")
    (table2["dfe_app", 1] / "config.yaml").write_text("surprise: 1")
    (table2["dfe_skd", 0] / "config.yaml").write_text(": : :")
    gathered = gather([tmp_path])
    assert len(gathered.problems) == 6 and all("\n" not in line for line in gathered.problems)
    text = "\n".join(gathered.problems)
    for part in (
        "claims run",
        "not a readable JSON",
        "is of an older version",
        "interpolation",
        "'surprise'",
        "not the configuration",
    ):
        assert part in text
    assert gathered.frame["path"].nunique() == 14 - 5
    assert {Path(path).parent.name[:5] for path in gathered.unfinished["path"]} == {"full-"}
    (tmp_path / "empty").mkdir()
    assert len(gather([tmp_path / "empty", tmp_path]).problems) == 7, "an empty folder stops no other"
    for place, message in {"nowhere": "is no folder", "empty": "holds no run folder"}.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=message):
            gather([tmp_path / place])


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        ({"metrics": []}, "has no row"),
        ({"row__mode": None}, "has no 'mode'"),
        ({"row__mean": {"rank1": 3}}, "no 'rank5'"),
        ({"row__mean": dict.fromkeys(["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"], "x")}, "no number"),
        ({"row__selection": "luck"}, "unknown selection 'luck'"),
        ({"train_seconds": "long"}, "'train_seconds' of its result is no number"),
        ({"run_id": "00000000-seed0"}, "result.json is of run 00000000-seed0"),
    ],
)
def test_a_result_that_does_not_fit_is_named(changed, table2, tmp_path, damage, part):
    changed(table2["full", 0], **damage)
    gathered = gather([tmp_path])
    (problem,) = gathered.problems
    assert part in problem and str(table2["full", 0]) in problem and "\n" not in problem
    assert (
        next(blocks_of(gathered, TABLES["table2"])).table.set_index("row")["runs"]["full"]
        == "1 of 2, seed 0 unreadable"
    )


def test_a_configuration_that_does_not_fit_is_named(table2, tmp_path):
    texts = {"full": ("seed: 0", "seed: none"), "dfe": (r"(?s)\ndfe:.*?(?=\n\w)", "\ndfe: 3")}
    for name, (old, new) in texts.items():
        file = table2[name, 0] / "config.yaml"
        text, count = re.subn(old, new, file.read_text())
        assert count
        file.write_text(text)
    (table2["baseline", 0] / "config.yaml").unlink()
    (table2["dfe_app", 0] / "config.yaml").write_bytes(b"\xff\xfe")
    problems = gather([tmp_path]).problems
    assert len(problems) == 4
    for part in ("seed=none", "dfe: 3", "config.yaml: No such file", "utf-8"):
        assert sum(part in line for line in problems) == 1
    assert all("restore" in line for line in problems)


def test_a_copy_with_a_result_wins(fabricate, configured, tmp_path):
    path = fabricate(configured())
    copy = shutil.copytree(path, tmp_path / "a copy")
    (Path(copy) / "result.json").unlink()
    gathered = gather([tmp_path])
    assert gathered.frame["path"].tolist() == [str(path)] and "a copy claims run" in gathered.problems[0]


def test_a_folder_with_the_configuration_of_another_run_is_not_to_be_removed(fabricate, configured, tmp_path):
    one, other = fabricate(configured()), fabricate(configured("dfe"))
    shutil.copy(one / "config.yaml", other / "config.yaml")
    (problem,) = gather(tmp_path).problems
    assert str(other) in problem and "restore the one that was changed" in problem and "remove" not in problem
