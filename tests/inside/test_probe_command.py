"""`python -m bdlf.probe`, and `table=probes` of the report."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bdlf import report
from bdlf.inside.claims import probes_figure, verdicts
from bdlf.inside.style import picture
from bdlf.reporting.options import parse
from bdlf.runs.probes import SCHEMA, read_probes, write_probes
from bdlf.system.errors import InputError


@pytest.fixture
def probed(command, tmp_path):
    """`probed(*words)`: what `python -m bdlf.probe` writes, and what it prints."""

    def run(*words: str, at: Path) -> tuple[dict, str]:
        code, out, err = command("probe", *words, "devices=cpu", "threads=1", f"data.cache_dir={tmp_path}/cache")
        assert code == 0, err
        return read_probes(at), out

    return run


def rows_of(content: dict, feature: str, group: str) -> dict[str, dict]:
    return {row["target"]: row for row in content["rows"] if row["feature"] == feature and row["group"] == group}


def test_a_run_is_probed_and_the_answer_is_printed_written_and_drawn(finished_run, probed):
    folder = finished_run()
    content, out = probed(f"run={folder}", at=folder / "probes.json")
    result = json.loads((folder / "result.json").read_text())
    assert content["schema"] == SCHEMA and content["run_id"] == result["run_id"]
    assert content["fingerprint"] == result["fingerprint"]
    assert {"commit", "dirty", "versions", "seed", "folds", "model", "epoch", "claims"} <= set(content)
    controls = ["untrained", "pixels", "factors"]
    features = ["Z", "Z_B", "Z_D", "Zbar_D", "Z_M", *controls, "Z_B - Z_D", "Z_B - Zbar_D"]
    assert content["probed"] == features
    for feature in features[:-2]:
        for group in ("modality", "camera", "shared", "visible", "infrared", "nuisance", "specific", "retrieval"):
            assert rows_of(content, feature, group), (feature, group)
        assert any(line.startswith(f"│ {feature} ") for line in out.splitlines()), feature
    for row in result["metrics"]:
        if row["model"] == content["model"]:
            name = f"mAP {row['direction']}"
            (own,) = [one for key, one in rows_of(content, "Z", "retrieval").items() if key.startswith(name)]
            assert own["score"] == row["mean"]["mAP"]
    assert out.count(" points [") == len(content["claims"]) == 8
    png = (folder / "probes.png").read_bytes()
    image = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert image.shape[1] > 600 and 0.01 < (image < 200).mean() < 0.3
    assert (folder / "probes.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_probing_twice_gives_the_same_bytes(finished_run, probed):
    folder = finished_run()
    content, _ = probed(f"run={folder}", at=folder / "probes.json")
    png = (folder / "probes.png").read_bytes()
    again, _ = probed(f"run={folder}", at=folder / "probes.json")
    assert again["rows"] == content["rows"]
    assert (folder / "probes.png").read_bytes() == png


@pytest.mark.slow
def test_only_what_is_asked_for_is_probed(finished_run, probed, tmp_path):
    folder = finished_run()
    where = tmp_path / "elsewhere"
    content, _ = probed(f"run={folder}", "what=Z_D,Z_B", f"output={where}", "seed=3", at=where / "probes.json")
    assert content["probed"] == ["Z_B", "Z_D", "untrained", "pixels", "factors", "Z_B - Z_D"]
    assert content["seed"] == 3
    assert not (folder / "probes.json").exists()


@pytest.mark.slow
def test_a_foreign_file_is_probed_as_the_run_that_wrote_it(finished_run, evaluated, probed, test_set, tmp_path):
    folder = finished_run()
    evaluated(f"run={folder}", "save_features=true")
    file = shutil.copy(tmp_path / "scored" / "features.npz", tmp_path / "theirs.npz")
    content, _ = probed(f"features={file}", *test_set, at=tmp_path / "theirs-probes.json")
    own, _ = probed(f"run={folder}", "what=Z", at=folder / "probes.json")
    assert content["probed"] == ["Z", "factors"] and content["run_id"] is None
    for group in ("modality", "camera", "shared", "visible", "retrieval"):
        assert rows_of(content, "Z", group) == rows_of(own, "Z", group)
    assert (tmp_path / "theirs-probes.png").is_file()


def test_of_a_real_set_everything_but_the_factors_is_probed(layouts, probed, tmp_path):
    from bdlf.data import listing

    table = listing("llcm", layouts / "llcm", splits=("test",))
    random = np.random.default_rng(0)
    arrays = {"features": random.normal(size=(len(table), 8)).astype(np.float32)}
    for array, column in (("pids", "pid"), ("camids", "camid"), ("modalities", "modality"), ("paths", "path")):
        values = table[column].to_numpy()
        arrays[array] = values if values.dtype.kind == "i" else values.astype(str)
    np.savez(tmp_path / "x.npz", **arrays)
    words = [f"features={tmp_path}/x.npz", "dataset=llcm", f"dataset.root={layouts}/llcm"]
    content, out = probed(*words, at=tmp_path / "x-probes.json")
    assert {row["group"] for row in content["rows"]} == {"modality", "camera", "retrieval"}
    assert content["left_out"] == ["factors: only the synthetic set knows them"]
    assert "shared" not in out and "camera" in out


@pytest.mark.slow
def test_more_people_narrow_the_intervals_and_leave_retrieval_as_it_is(finished_run, probed, tmp_path):
    folder = finished_run()
    words = [f"run={folder}", "what=Z,Z_D", "dataset.synthetic.test_identities=30"]
    content, _ = probed(*words, f"output={tmp_path}/more", at=tmp_path / "more" / "probes.json")
    own, _ = probed(f"run={folder}", "what=Z,Z_D", at=folder / "probes.json")
    assert (own["test_identities"], content["test_identities"]) == (4, 30)
    assert content["fingerprint"] == own["fingerprint"]
    for target, row in rows_of(own, "Z", "retrieval").items():
        other = rows_of(content, "Z", "retrieval")[target]
        assert other["score"] == row["score"]  # to the last bit
        assert (other["low"], other["identities"]) == (pytest.approx(row["low"]), 4)
    many, few = (rows_of(one, "factors", "nuisance")["all"] for one in (content, own))
    assert many["images"] == 120 and few["images"] == 16
    assert many["high"] - many["low"] < few["high"] - few["low"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of run=FOLDER and features=FILE.npz is needed; none is given"),
        (["run=RUN", "features=x.npz"], "one of run=FOLDER and features=FILE.npz is needed; both is given"),
        (["run=RUN", "what=Z_X"], "feature='Z_X' is not known; known: Z, Z_B, Z_D, Zbar_D, Z_M"),
        (["run=nowhere"], "nowhere/config.yaml does not exist"),
        (["features=x.npz"], "features= needs their dataset: dataset="),
        (["features=x.npz", "what=Z"], "what= does not go with features="),
        (["features=x.npz", "dataset=synthetic"], "x.npz does not exist"),
        (["run=RUN", "sede=1"], "sede"),
        (["run=RUN", "dataset.seed=1"], "dataset.seed=1 does not go with run="),
        (["run=RUN", "dataset.synthetic.images_per_identity=3"], "dataset.synthetic.images_per_identity=3 does not go"),
        (["run=RUN", "dataset.synthetic.test_identities=3"], "the run is scored on 4; give 4 or more"),
    ],
)
def test_bad_input_gets_one_line(finished_run, command, words, message):
    folder = finished_run() if "run=RUN" in words else None
    words = [word.replace("RUN", str(folder)) for word in words]
    code, out, err = command("probe", *words, "devices=cpu")
    assert code == 2 and message in err, err
    assert len(err.strip().splitlines()) == 1 and not out


def test_a_variant_without_the_feature_and_a_run_without_weights_get_one_line(finished_run, command):
    folder = finished_run("variant=baseline")
    code, _, err = command("probe", f"run={folder}", "what=Z_D", "devices=cpu")
    assert code == 2 and "Z_D: the network of variant=baseline has no such feature; it has Z, " in err
    shutil.rmtree(folder / "checkpoints")
    code, _, err = command("probe", f"run={folder}", "devices=cpu")
    assert code == 2 and "has no weights" in err and len(err.strip().splitlines()) == 1


def test_a_dataset_that_moved_gets_one_line(finished_run, command, tmp_path):
    folder = finished_run()
    text = (folder / "config.yaml").read_text().replace("  name: synthetic", "  name: regdb", 1)
    (folder / "config.yaml").write_text(text.replace("  root: null", f"  root: {tmp_path}/gone", 1))
    code, _, err = command("probe", f"run={folder}", "devices=cpu")
    assert code == 2 and f"{tmp_path}/gone" in err and len(err.strip().splitlines()) == 1, err


def made_up(**scores: tuple[float, float]) -> pd.DataFrame:
    """Probes in which `feature` has these scores for shared and specific factors, with intervals of +-1."""
    rows = [
        (feature.replace("_minus_", " - "), "all", group, "above chance", value, value - 1, value + 1, 0.0, 9, 9)
        for feature, values in scores.items()
        for group, value in zip(("shared", "specific"), values, strict=True)
    ]
    columns = ["feature", "target", "group", "measure", "score", "low", "high", "chance", "identities", "images"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(("difference", "verdict"), [(5, "yes"), (-5, "no"), (0.5, "undecided"), (1, "undecided")])
def test_a_claim_is_undecided_unless_its_interval_excludes_0(difference, verdict):
    probes = made_up(Z_B=(20, 10), Z_D=(15, 15), Z_B_minus_Z_D=(difference, -difference))
    assert [one.verdict for one in verdicts(probes)] == [verdict, verdict]
    assert len(picture(probes_figure(probes, "x"), "png")) > 5000


def reported(*words: str) -> int:
    return report.report(parse(list(words)))


def test_the_report_shows_probes_beside_the_rows_of_table_2(finished_run, tmp_path, capsys):
    folder = finished_run()
    with pytest.raises(InputError, match=r"no run of Table 2 has been probed.*has no probes\.json"):
        reported(f"{tmp_path}/out", "table=probes")
    rows = made_up(Z=(31.24, 9), Z_B=(20, 10), pixels=(7, 7), Z_B_minus_Z_D=(12.34, -5))
    run_id = json.loads((folder / "result.json").read_text())["run_id"]
    write_probes(folder / "probes.json", rows, run_id=run_id)
    capsys.readouterr()
    assert reported(f"{tmp_path}/out", "table=probes") == 0
    text = capsys.readouterr().out
    shared, specific = text.split("Factors that only one")
    assert [cell.strip() for cell in shared.splitlines()[-2].split("|")][1:-1] == ["full", "1", "31.2", "20.0", "12.3"]
    assert "| full |    1 |" in specific and "-5.0" in specific and "12.3" not in specific
    assert "pixels" not in text and max(map(len, text.splitlines())) <= 120
    reported(f"{tmp_path}/out", "table=probes", "format=csv", f"out={tmp_path}/tables")
    frame = pd.read_csv(tmp_path / "tables" / "probes.csv")
    chosen = frame[(frame["feature"] == "Z_B - Z_D") & (frame["group"] == "shared")]
    assert (chosen["mean"].tolist(), chosen["count"].tolist()) == ([12.34], [1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=tex"], "format=tex: table=probes is written as md or csv"),
        (["reference=full"], "table=probes takes neither reference= nor plan="),
        (["plan=2"], "table=probes takes neither reference= nor plan="),
    ],
)
def test_the_report_refuses_what_it_cannot_do_with_probes(finished_run, tmp_path, words, message):
    finished_run()
    with pytest.raises(InputError, match=message):
        reported(f"{tmp_path}/out", "table=probes", *words)


def test_damaged_probes_and_those_of_another_run_are_left_out_of_the_report(finished_run, tmp_path):
    folder = finished_run()
    (folder / "probes.json").write_text("{}")
    with pytest.raises(InputError, match="is not a file of probes of this version"):
        reported(f"{tmp_path}/out", "table=probes")
    (folder / "probes.json").write_text(json.dumps({"schema": SCHEMA, "run_id": "other", "rows": []}))
    with pytest.raises(InputError, match="is of run other"):
        reported(f"{tmp_path}/out", "table=probes")
