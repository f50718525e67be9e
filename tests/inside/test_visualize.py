"""`bdlf.visualize`: which files it writes, that they are the same on a second call, and what it says of bad input."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdlf import open_run
from bdlf.commandline.words import in_order
from bdlf.config import VisualizeConfig
from bdlf.inside.batch import batch_figure, pixels, training_batch
from bdlf.inside.drawings import DRAWINGS
from bdlf.inside.embedding import METHODS
from bdlf.inside.heat import MAPS
from bdlf.inside.style import WIDTHS, picture
from bdlf.inside.terms import terms_figure, weights_of
from bdlf.system.errors import InputError
from bdlf.visualize import WHAT, visualize

LOGGED = ("total", "id", "tri", "corr_base", "corr_detail", "attention_own")


@pytest.fixture
def drawn(command, tmp_path):
    """`drawn(*arguments)`: what `bdlf.visualize` returns, with its output in `tmp_path/figures`."""

    def run(*arguments: str) -> tuple[int, str, str]:
        others = [f"output={tmp_path}/figures", "devices=cpu", "threads=1", f"data.cache_dir={tmp_path}/cache"]
        return command("visualize", *arguments, *others)

    return run


def panels(figure) -> int:
    return sum(axes.has_data() for part in (figure, *figure.subfigs) for axes in part.axes) or len(figure.axes)


def is_drawn(content: bytes) -> bool:
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    return shown.std() > 5 and (shown[[0, -1]] > 250).all() and (shown[:, [0, -1]] > 250).all()


def test_the_names_that_the_command_checks_are_those_that_can_be_drawn():
    assert tuple(DRAWINGS) == WHAT
    source = (Path(__file__).parents[2] / "bdlf" / "visualize.py").read_text()
    for option, known in (("width", WIDTHS), ("method", METHODS), ("map", tuple(MAPS))):
        literal = repr(known).replace("'", '"')
        assert f'check_choice("{option}", config.{option}, {literal})' in source


def test_commas_separate_the_members_of_one_list_and_make_no_jobs():
    typed = ["what=terms,batch", "pids=[5,6]", "runs=a/b,c d", "what=terms"]
    read = in_order(typed, "visualize", VisualizeConfig)
    assert read == ['what=["terms","batch"]', "pids=[5,6]", 'runs=["a/b","c d"]', "what=terms"]


@pytest.mark.slow
def test_two_calls_write_the_same_bytes(finished_run, drawn, tmp_path):
    arguments = (f"run={finished_run()}", "what=distances")
    code, out, err = drawn(*arguments)
    assert code == 0, err
    files = {file.name: file.read_bytes() for file in (tmp_path / "figures").iterdir()}
    assert set(files) == {"distances.png", "distances.svg", "index.html", "figures.json"}
    assert f"open {tmp_path}/figures/index.html" in out.replace("\n", "")
    assert is_drawn(files["distances.png"])
    shutil.rmtree(tmp_path / "figures")
    assert drawn(*arguments)[0] == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "figures").iterdir()} == files


def test_a_run_without_weights_shows_what_needs_none(finished_run, drawn, tmp_path):
    folder = finished_run()
    shutil.rmtree(folder / "checkpoints")
    code, out, _ = drawn(f"run={folder}", "what=attention,ranking,batch", "width=85")
    assert code == 2
    assert "warning: attention, ranking left out" in out
    assert "has no weights (last.pt" in out
    told = json.loads((tmp_path / "figures" / "figures.json").read_text())
    assert list(told["figures"]) == ["batch"]
    assert list(told["left_out"]) == ["attention", "ranking"]
    assert "Left out" in (tmp_path / "figures" / "index.html").read_text()


@pytest.mark.slow
def test_a_foreign_file_is_drawn_like_the_run_that_it_came_from(finished_run, command, drawn, tmp_path, test_set):
    folder = finished_run()
    words = [f"run={folder}", "save_features=true", f"output={tmp_path}/scored", "devices=cpu"]
    assert command("evaluate", *words, f"data.cache_dir={tmp_path}/cache")[0] == 0
    what = "what=ranking,distances"
    code, _, err = drawn(f"features={tmp_path}/scored/features.npz", *test_set, what, "width=85")
    assert code == 0, err
    told = json.loads((tmp_path / "figures" / "figures.json").read_text())["figures"]
    result = json.loads((folder / "result.json").read_text())["metrics"][0]
    assert told["ranking"]["numbers"]["mAP"] == pytest.approx(result["mean"]["mAP"])
    assert list(told["distances"]["numbers"]) == ["Z"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run": "x", "what": "heat"}, "what='heat' is not known; known: attention, ranking, embedding, distances, ba"),
        ({"run": "x", "what": ["terms", "heat"]}, "what='heat' is not known"),
        ({"run": "x", "map": "cam"}, "map='cam' is not known; known: gradient, norm"),
        ({"run": "x", "method": "umap"}, "method='umap' is not known; known: tsne, pca"),
        ({"run": "x", "width": 100}, "width=100 is not known; known: 170, 85"),
        ({"runs": "x", "what": "ranking"}, "what=ranking is not drawn of runs=, which suffices for terms"),
        ({"features": "x", "what": "batch"}, "what=batch is not drawn of features=, which suffices for ranking, emb"),
        ({"features": "x", "run": "y"}, "features= does not go with run= or runs="),
        ({"what": "terms"}, "one of run=FOLDER, runs=FOLDERS and features=FILE.npz is needed; none is given"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(given, message):
    with pytest.raises(InputError) as refused:
        visualize(VisualizeConfig(**given))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("run={run} what=ranking,terms pids=1,me", "pids=me: identities are whole numbers, like pids=5001,5002"),
        ("run={run}/none", "config.yaml does not exist; run= takes a run folder"),
        ("runs={run}/*/none", "no such run folder; name folders like"),
        ("features=none.npz", "features= needs their dataset"),
    ],
)
def test_bad_input_is_answered_in_one_line(given, message, drawn, tmp_path):
    code, _, err = drawn(*given.format(run=tmp_path).split())
    assert code == 2
    assert re.fullmatch(f"error: .*{message}.*\n", err), err
    assert not (tmp_path / "figures").exists()


def test_a_dataset_that_moved_is_named_in_one_line(finished_run, drawn):
    folder = finished_run()
    config = folder / "config.yaml"
    config.write_text(re.sub("name: synthetic\n  root: null", "name: regdb\n  root: /moved", config.read_text()))
    code, _, err = drawn(f"run={folder}", "what=attention,ranking,embedding,distances,batch")
    assert code == 2
    assert re.fullmatch("error: .*/moved.*dataset.root=FOLDER.*\n", err), err
    assert err.count("/moved") == 1


def test_the_batch_is_the_one_that_the_run_was_trained_on(finished_run):
    run = open_run(finished_run())
    batch, pids = training_batch(run)
    assert sorted(set(pids)) == run.batches(run.store(torch.device("cpu"))).identities(0, 0)
    shown = pixels(batch.images)
    assert shown.shape == (8, 32, 16, 3)
    assert 0 <= float(shown.min()) < float(shown.max()) <= 1
    assert is_drawn(picture(batch_figure(run, width=85), "png"))


def test_the_terms_have_a_panel_for_each_column_and_the_weights_of_the_ramp(finished_run):
    run = open_run(finished_run())
    figure = terms_figure({"one": run, "again": run}, width=170)
    drawn = {axes.get_title().replace("\n", "").removesuffix("(ramped)").strip(): axes for axes in figure.axes}
    columns = run.metrics.columns
    between = columns[columns.get_loc("total") : columns.get_loc("gradient_norm")]
    assert set(drawn) == {*between, "corr_base", "corr_detail", "corr_detail_centred", "attention_own", "weights"}
    for name in LOGGED:
        lines = [line for line in drawn[name].get_lines() if len(line.get_xdata()) == len(run.metrics)]
        np.testing.assert_array_equal(lines[0].get_ydata(), run.metrics[name])
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    weights = weights_of(run, 2)
    ramp = run.config.loss.ramp
    np.testing.assert_allclose(weights["skd"], np.minimum(1, np.array([0.25, 0.75]) / ramp))
    np.testing.assert_array_equal(weights["id"], [1, 1])
    assert is_drawn(picture(figure, "png"))


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))


BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser")
def test_the_page_of_all_figures_opens_in_a_browser_and_fits_desktop_and_phone(finished_run, drawn, tmp_path):
    assert drawn(f"run={finished_run()}")[0] == 0
    file = tmp_path / "figures" / "index.html"
    text = file.read_text()
    tags = _Page(text).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == len(WHAT)
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in images)
    assert not any(tag in ("script", "link", "iframe") for tag, _ in tags)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    for width in (1280, 390):
        # The width that the page needs is written into its title by a script that only this copy has.
        asking = "<script>onload = () => document.title = document.documentElement.scrollWidth</script></body>"
        copy = tmp_path / f"asking{width}.html"
        copy.write_text(text.replace("</body>", asking))
        page = tmp_path / f"frame{width}.html"  # a browser's window is never narrower than 500 pixels, a frame is
        page.write_text(
            f'<body style="margin:0"><iframe src="{copy.name}" width="{width}" height="4000" frameborder="0">'
        )
        picture_of = tmp_path / f"{width}.png"
        _browse(f"--window-size={max(500, width)},4000", f"--screenshot={picture_of}", page.as_uri())
        shown = np.asarray(Image.open(picture_of).convert("L"))[:, :width]
        assert shown.std() > 20
        assert (shown[:, -8:] == 255).all(), "something reaches the right border"
        inside = tmp_path / f"measured{width}.html"
        inside.write_text(
            f'<iframe id="f" src="{copy.name}" width="{width}" height="900" frameborder="0"></iframe><p id="w"></p>'
            "<script>f.onload = () => setTimeout(() => w.textContent = f.contentDocument.title, 300)</script>"
        )
        dom = _browse("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", inside.as_uri())
        needed = re.search(r'<p id="w">(\d+)</p>', dom)
        assert needed is not None
        assert int(needed[1]) <= width


def _browse(*arguments: str) -> str:
    assert BROWSER is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    done = subprocess.run([BROWSER, *flags, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
