"""The figures of `bdlf.visualize`: what they show is compared with constructed features, maps and rankings."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats

from bdlf.datasets import DATASETS
from bdlf.evaluation import Asked, ranked_gallery, retrieval_metrics, settings
from bdlf.evaluation.metrics import RULES
from bdlf.experiment import prepare
from bdlf.inside import heat as heat_of
from bdlf.inside.attention import attention_figure, attention_numbers, interval, shown_images, widths
from bdlf.inside.distances import distance_shares, distances_figure, distances_numbers
from bdlf.inside.embedding import embedded, embedding_figure
from bdlf.inside.features import InsideFeatures
from bdlf.inside.heat import AttentionMaps
from bdlf.inside.ranking import FIRST, chosen_queries, rank, ranking_figure
from bdlf.inside.style import picture
from bdlf.system.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TINY = ["image.height=64", "image.width=32", "backbone.name=resnet10", "batch.identities=2"]


def people(identities: int = 6, images: int = 4, *, seed: int = 0, spread: float = 0.1) -> InsideFeatures:
    """Features that lie around one random centre for each identity, half of the images of each modality."""
    random = np.random.default_rng(seed)
    pids = np.repeat(np.arange(identities), 2 * images)
    modalities = np.tile(np.repeat(["vis", "ir"], images), identities)
    table = pd.DataFrame({"pid": pids, "camid": np.where(modalities == "vis", 1, 3), "modality": modalities})
    table["path"] = [f"{row}.png" for row in range(len(table))]
    table["split"] = "test"
    centres = random.normal(size=(identities, 16))
    features = {
        name: (centres[pids] + spread * random.normal(size=(len(pids), 16))).astype(np.float32)
        for name in ("Z", "Z_B", "Z_D", "Zbar_D")
    }
    features["Z"] /= np.linalg.norm(features["Z"], axis=1, keepdims=True)
    return InsideFeatures(features, np.arange(len(table)), table)


def pixels_of(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture(figure, "png"))).convert("RGB"))


def panels(figure) -> int:
    """Axes in which something is drawn."""
    return sum(axes.has_data() for axes in figure.axes)


def require_drawn(figure, width: int) -> None:
    """Every panel has more than one colour, nothing touches the border, and the picture has the width in mm."""
    shown = pixels_of(figure)
    assert shown.shape[1] == pytest.approx(width / 25.4 * 220, abs=2)
    border = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]])
    assert (border == 255).all(), "something is clipped at the border"
    height = shown.shape[0]
    for axes in figure.axes:
        if axes.has_data():
            box = axes.get_window_extent().extents / figure.dpi * 220
            left, bottom, right, top = (round(float(value)) for value in box)
            part = shown[max(0, height - top) : height - bottom, max(0, left) : right]
            assert len(np.unique(part.reshape(-1, 3), axis=0)) > 1, "a panel is blank"


@pytest.mark.parametrize("protocol", RULES)
def test_the_first_of_the_gallery_are_those_that_the_rule_shows(protocol):
    random = np.random.default_rng(1)
    query_pids, gallery_pids = random.integers(0, 4, 7), random.integers(0, 4, 9)
    query_camids, gallery_camids = random.integers(1, 5, 7), random.integers(1, 5, 9)
    similarity = np.round(random.normal(size=(7, 9)), 1).astype(np.float32)  # with ties
    found = ranked_gallery(
        similarity, query_pids, gallery_pids, query_camids, gallery_camids, protocol=protocol, first=FIRST
    )
    rule = RULES[protocol]
    scored = retrieval_metrics(similarity, query_pids, gallery_pids, query_camids, gallery_camids, protocol=protocol)
    for query in range(7):
        seen = [
            column
            for column in range(9)
            if (query_camids[query], gallery_camids[column]) not in rule.hidden_cameras
            and not (
                rule.hides_own_camera
                and query_camids[query] == gallery_camids[column]
                and query_pids[query] == gallery_pids[column]
            )
        ]
        expected = sorted(seen, key=lambda column: (-similarity[query, column], column))[:FIRST]
        assert found[query].tolist() == expected + [-1] * (FIRST - len(expected))
        right = [place for place, column in enumerate(expected, 1) if gallery_pids[column] == query_pids[query]]
        if right:
            precision = [hits / place for hits, place in enumerate(right, 1)]
            assert np.mean(precision) == pytest.approx(scored.average_precision[query])


def ranked(inside: InsideFeatures):
    (name,) = [name for name, dataset in DATASETS.items() if not dataset.has_files]
    setting = settings(name, inside.table, Asked())[0]
    return rank(inside, inside.table, setting)


def test_a_ranking_has_the_scores_of_the_protocol_and_its_hardest_queries_first():
    inside = people(spread=0.8)
    ranking = ranked(inside)
    queries, gallery = ranking.setting.trials[0]
    features = inside.features["Z"]
    pids = inside.table["pid"].to_numpy()
    similarity = features[queries] @ features[gallery].T
    scored = retrieval_metrics(similarity, pids[queries], pids[gallery], protocol="regdb")
    np.testing.assert_array_equal(ranking.ap, scored.average_precision)
    np.testing.assert_array_equal(ranking.first[:, 0], gallery[similarity.argmax(axis=1)])
    chosen = chosen_queries(ranking, inside.table)
    hardest = [at for why, at in chosen if why == "hardest"]
    easiest = [at for why, at in chosen if why == "easiest"]
    assert ranking.ap[hardest[0]] == ranking.ap.min()
    assert ranking.ap[easiest[0]] == ranking.ap.max()
    assert len({pids[queries[at]] for at in hardest}) == len(hardest) == 3
    of_two = chosen_queries(ranking, inside.table, pids=(4, 2))
    assert [(why, pids[queries[at]]) for why, at in of_two] == [
        *(("hardest", 4), ("easiest", 4)),
        *(("hardest", 2), ("easiest", 2)),
    ]
    with pytest.raises(InputError, match=r"pids=77: no query of .* shows identity 77 .* there are 0, 1, 2"):
        chosen_queries(ranking, inside.table, pids=(77,))
    with pytest.raises(InputError, match=r"trial=1: .* has the trials 0\.\.0"):
        rank(inside, inside.table, ranking.setting, trial=1)


def test_the_contact_sheet_marks_right_and_wrong_not_by_colour_alone():
    inside = people(spread=0.8)
    random = np.random.default_rng(0)
    ranking = ranked(inside)
    figure = ranking_figure(
        ranking,
        inside.table,
        lambda rows: random.integers(0, 256, (len(rows), 8, 4, 3), dtype=np.uint8),
        pids=(1,),
        width=85,
    )
    require_drawn(figure, 85)
    assert panels(figure) == 2 * (1 + FIRST)
    marks = [axes.texts[0].get_text() for axes in figure.axes if axes.texts]
    pids = inside.table["pid"].to_numpy()
    right = [pids[row] == 1 for _, at in chosen_queries(ranking, inside.table, pids=(1,)) for row in ranking.first[at]]
    assert marks == ["✓" if one else "✗" for one in right]
    assert {True, False} == set(right)


def test_overlap_and_pairs_are_those_of_constructed_features():
    apart = people(spread=0.01)
    numbers = distances_numbers(apart)
    assert list(numbers) == ["Z", "Z_B", "Z_D", "Zbar_D"]
    assert numbers["Z"]["within"]["overlap"] == numbers["Z"]["across"]["overlap"] == 0
    mixed = dataclasses.replace(apart, features={"Z": np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)})
    assert distances_numbers(mixed)["Z"]["across"]["overlap"] > 0.5
    by_modality = np.where(apart.table["modality"] == "vis", 1.0, -1.0)[:, None].astype(np.float32)
    shares = distance_shares(dataclasses.replace(apart, features={"Z": by_modality}))
    for same_or_other in (0, 1):  # all pairs within a modality are at distance 0, and across at distance 2
        assert shares["Z", "within"][same_or_other][0] == 1
        assert shares["Z", "across"][same_or_other][-1] == 1


def test_the_figures_of_features_have_two_panels_for_each_feature():
    inside = people()
    for figure, width in ((distances_figure(inside), 170), (embedding_figure(inside, method="pca", width=85), 85)):
        assert panels(figure) == 8
        require_drawn(figure, width)
    foreign = dataclasses.replace(inside, features={"Z": inside.features["Z"]})
    assert panels(distances_figure(foreign)) == 2


def test_pca_gives_the_principal_components_and_tsne_the_same_points_twice():
    inside = people()
    lines = np.arange(len(inside.table))
    plane = embedded(inside, lines, method="pca", seed=0)["Z"]
    units = inside.features["Z"].astype(np.float64)
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    values = np.linalg.svd(units - units.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=0), values[:2], rtol=1e-6)
    once, twice = (embedded(inside, lines, method="tsne", seed=3)["Z"] for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    middles = np.stack([once[inside.table["pid"] == pid].mean(axis=0) for pid in range(6)])
    nearest = ((once[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == inside.table["pid"]).all()
    with pytest.raises(InputError, match="pids=99: no image shows identity 99; there are 0, 1"):
        embedding_figure(inside, pids=(99,))
    with pytest.raises(InputError, match="method='umap' is not known; known: tsne, pca"):
        embedding_figure(inside, method="umap")


def test_widths_of_known_maps():
    maps = np.zeros((4, 4, 2), np.float32)
    maps[0, 1, 1] = 5  # one position
    maps[1] = 2  # all alike
    maps[2, :2] = 1  # half of them
    found = widths(maps)
    np.testing.assert_allclose(found["area"], [1 / 8, 1, 1 / 2, np.nan])
    np.testing.assert_allclose(found["entropy"], [0, 1, np.log(4) / np.log(8), np.nan], atol=1e-12)


def test_the_interval_is_student_t_over_identities():
    values = np.random.default_rng(0).normal(size=9)
    found = interval(values)
    low, high = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((values.mean(), low, high))
    assert interval(values[:1]) == {"mean": values[0], "low": None, "high": None}


def test_numbers_of_maps_average_identities_and_compare_only_maps_of_one_size():
    random = np.random.default_rng(0)
    pids = np.array([1, 1, 1, 2, 3, 3])
    modalities = np.array(["vis", "ir", "vis", "vis", "vis", "ir"])
    wide, narrow = np.ones((6, 4, 2), np.float32), random.random((6, 4, 2)).astype(np.float32) ** 8
    maps = AttentionMaps({"comprehensive": wide, "detail": narrow}, np.arange(6), pids, modalities, 3, "norm")
    numbers = attention_numbers(maps)
    areas = widths(narrow)["area"]
    by_identity = [areas[:3].mean(), areas[3], areas[4:].mean()]
    assert numbers["detail"]["area"]["mean"] == pytest.approx(np.mean(by_identity))
    assert numbers["detail_minus_comprehensive"]["area"]["mean"] == pytest.approx(np.mean(by_identity) - 1)
    assert numbers["identities"] == 3
    cold = narrow.copy()
    cold[[0, 3]] = 0  # identity 2 has no heat at all
    numbers = attention_numbers(dataclasses.replace(maps, heat={"comprehensive": wide, "detail": cold}))
    assert numbers["detail"]["without_heat"] == 2
    assert numbers["detail"]["area"]["mean"] == pytest.approx(np.mean([areas[1:3].mean(), areas[4:].mean()]))
    other = dataclasses.replace(maps, heat={"comprehensive": wide[:, :2], "detail": narrow})
    assert "detail_minus_comprehensive" not in attention_numbers(other)
    shown = shown_images(maps)
    assert shown.tolist() == [0, 1, 4, 5]  # identity 2 has no infrared image
    figure = attention_figure(maps, random.integers(0, 256, (4, 8, 4, 3), dtype=np.uint8), shown, width=85)
    require_drawn(figure, 85)
    assert panels(figure) == 3 * 4 + 1  # and the scale
    with pytest.raises(InputError, match="pids=2: identity 2 has no test image of both modalities; there are 1, 3"):
        shown_images(maps, pids=(2,))


def test_grad_cam_of_a_mean_is_the_dot_product_with_the_mean():
    maps = torch.randn(2, 5, 3, 2, requires_grad=True)
    pooled = maps.mean((2, 3))
    found = heat_of._gradient(maps, pooled)
    expected = (maps * pooled[:, :, None, None]).sum(dim=1).clamp(min=0) / 6
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("method", ["bdlf", "deen", "mmn", "sgiel"])
def test_the_heat_of_an_image_is_its_own_in_every_method(method):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_object(compose("config", [*TINY, f"method={method}", "dataset=synthetic"]))
    network = prepare(config).network
    network.double()  # random weights have tiny gradients
    network.eval()
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    stage = heat_of._stage_of_equal_size(network, images[:1], "ir")
    for of in heat_of.MAPS:
        together = heat_of._heat(network, images, "ir", stage, of, "after_bn")
        assert ("detail" in together) == (method == "bdlf")
        alone = heat_of._heat(network, images[1:], "ir", stage, of, "after_bn")
        for name, heat in together.items():
            assert len(heat) == 2
            torch.testing.assert_close(alone[name][0], heat[1], rtol=1e-4, atol=1e-4 * float(heat.max()))
    assert not any(module._forward_hooks for module in network.modules()), "a hook was left behind"
