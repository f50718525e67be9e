"""What the drawn images depend on, and on what they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bdlf.data.synthetic import drawing as synthetic_drawing
from bdlf.data.synthetic import person as synthetic_person
from bdlf.data.synthetic.canvas import Canvas
from bdlf.data.synthetic.drawing import contact_sheet, drawing_stamp, render
from bdlf.data.synthetic.factors import FACTOR_KINDS, SHARED_CLASSES, synthetic_listing
from bdlf.data.synthetic.person import Person
from bdlf.system.errors import InputError

HEIGHT, WIDTH = 64, 32


@pytest.fixture(scope="module")
def listing() -> pd.DataFrame:
    table = synthetic_listing(train_identities=24, test_identities=0, images_per_identity=1)
    table["occluder"] = np.arange(len(table)) % 3  # often enough that each of its factors shows
    return table


@pytest.fixture(scope="module")
def images(listing: pd.DataFrame) -> np.ndarray:
    return render(listing, HEIGHT, WIDTH)


def test_shape_type_and_determinism(listing: pd.DataFrame, images: np.ndarray) -> None:
    assert images.shape == (len(listing), HEIGHT, WIDTH, 3)
    assert images.dtype == np.uint8
    assert np.array_equal(images, render(listing, HEIGHT, WIDTH))
    assert render(listing.iloc[:0], HEIGHT, WIDTH).shape == (0, HEIGHT, WIDTH, 3)


def test_each_row_is_drawn_as_if_alone(listing: pd.DataFrame, images: np.ndarray) -> None:
    one_by_one = np.concatenate([render(listing.iloc[[k]], HEIGHT, WIDTH) for k in range(len(listing))])
    assert np.array_equal(images, one_by_one)
    backwards = render(listing.iloc[::-1], HEIGHT, WIDTH)
    assert np.array_equal(images, backwards[::-1])


def test_infrared_is_grey_and_visible_is_not(listing: pd.DataFrame, images: np.ndarray) -> None:
    infrared = images[listing["modality"] == "ir"]
    assert (infrared == infrared[..., :1]).all()
    visible = images[listing["modality"] == "vis"].astype(int)
    assert (np.ptp(visible, axis=3).mean(axis=(1, 2)) > 5).all()


@pytest.mark.parametrize("factor", FACTOR_KINDS)
def test_each_factor_shows_where_its_kind_says(factor: str, listing: pd.DataFrame, images: np.ndarray) -> None:
    changed = listing.copy()
    changed[factor] = listing[factor].to_numpy()[::-1]
    differs = (render(changed, HEIGHT, WIDTH) != images).any(axis=(1, 2, 3))
    visible, infrared = (bool(differs[listing["modality"] == kind].any()) for kind in ("vis", "ir"))
    expected = {"shared": (True, True), "visible": (True, False), "infrared": (False, True), "nuisance": (True, True)}
    assert (visible, infrared) == ((True, False) if factor.startswith("tint") else expected[FACTOR_KINDS[factor]])


def test_shared_factors_change_more_than_a_pixel_or_two_in_infrared(listing: pd.DataFrame, images: np.ndarray) -> None:
    """Every shared factor moves some person's infrared image clearly, noise being held."""
    infrared = listing["modality"].to_numpy() == "ir"
    for factor in [name for name, kind in FACTOR_KINDS.items() if kind == "shared"]:
        changed = listing.copy()
        changed[factor] = listing[factor].to_numpy()[::-1]
        difference = np.abs(render(changed, HEIGHT, WIDTH)[infrared].astype(int) - images[infrared])
        assert ((difference > 20).mean(axis=(1, 2, 3)) > 0.004).any(), factor


def quiet(listing: pd.DataFrame) -> pd.DataFrame:
    return listing.assign(noise=0.0, occluder=0.0)


def test_a_shift_by_part_of_a_pixel_changes_pixels_in_proportion(listing: pd.DataFrame) -> None:
    scene = quiet(listing)

    def moved(pixels: float) -> np.ndarray:
        return render(scene.assign(shift_x=pixels * 0.5 / WIDTH), HEIGHT, WIDTH).astype(float)

    rest, whole = moved(0.0), np.abs(moved(1.0) - moved(0.0)).sum(axis=(1, 2, 3))
    quarter = np.abs(moved(0.25) - rest).sum(axis=(1, 2, 3)) / whole
    assert (quarter > 0.15).all()
    assert (quarter < 0.50).all()  # narrow stripes pass over a pixel in less than its width
    assert np.median(quarter) == pytest.approx(0.25, abs=0.03)


def test_a_shape_covers_its_area_with_soft_edges() -> None:
    canvas = Canvas(1, 1, 40, 20, blur=1.0)
    number = np.float32([[1]])
    canvas.paint(number, 0.0137 * number, 0.0731 * number, canvas.between(0.2113 * number, 0.6359 * number))
    area = canvas.planes.sum() * (1 / 40) * (0.5 / 20)
    assert area == pytest.approx(2 * 0.0731 * (0.6359 - 0.2113), rel=1e-4)
    assert ((canvas.planes > 0.01) & (canvas.planes < 0.99)).sum() > 20

    canvas = Canvas(1, 1, 80, 40, blur=1.0)
    canvas.ellipse(number, 0.01 * number, 0.5 * number, 0.11 * number, 0.17 * number)
    area = canvas.planes.sum() * (1 / 80) * (0.5 / 40)
    assert area == pytest.approx(np.pi * 0.11 * 0.17, rel=0.02)


def test_later_paint_covers_earlier_and_a_sliver_covers_in_part() -> None:
    canvas = Canvas(2, 3, 8, 9, blur=1.0)
    number, everywhere = np.ones((2, 1), np.float32), np.ones((2, 8), np.float32)
    first, second = np.full((3, 2), 0.2, np.float32), np.float32([[0.9, 0.9], [0.5, 0.5], [0.1, 0.1]])
    canvas.paint(first, 0 * number, number, everywhere)
    sliver = 0.05 * canvas.soft_x  # half of its width, in the middle of the fifth column
    canvas.paint(second, 0 * number, np.float32([[1.0], [sliver]]), everywhere)
    assert np.allclose(canvas.planes[:, 0], second[:, :1, None])
    assert np.allclose(np.delete(canvas.planes[:, 1], 4, axis=2), 0.2)
    opacity = (canvas.planes[0, 1, :, 4] - 0.2) / 0.7
    assert (opacity > 0.02).all()
    assert (opacity < 0.11).all()
    canvas.paint(first, 5 * number, number / 8, everywhere)  # beside the frame
    assert np.allclose(canvas.planes[:, 0], second[:, :1, None])


def test_the_polyline_passes_its_points() -> None:
    canvas = Canvas(1, 1, 200, 4, blur=1.0)
    points = [np.float32([[v]]) for v in (0.2, 0.5, 0.8)]
    values = [np.float32([[v]]) for v in (3.0, -1.0, 2.0)]
    line = canvas.along(points, values)
    expected = np.interp(canvas.y[0], [0.2, 0.5, 0.8], [3.0, -1.0, 2.0])
    assert np.allclose(line[0], expected, atol=1e-4)


def test_noise_has_the_size_it_says(listing: pd.DataFrame) -> None:
    scene = quiet(listing).assign(light=0.6, light_gradient=0.0)
    clean = render(scene, HEIGHT, WIDTH).astype(float)
    for kind, factor in (("vis", 1.0), ("ir", np.sqrt(2))):
        rows = scene["modality"] == kind
        noisy = render(scene[rows].assign(noise=0.02), HEIGHT, WIDTH).astype(float)
        inside = (clean[rows] > 40) & (clean[rows] < 215)
        spread = (noisy - clean[rows])[inside].std() / 255
        assert spread == pytest.approx(0.02 * factor, rel=0.06)


def test_the_person_stays_in_the_frame_at_every_size(listing: pd.DataFrame) -> None:
    scene = quiet(listing)
    large, small = render(scene, 128, 64).astype(float), render(scene, 64, 32).astype(float)
    halved = large.reshape(len(scene), 64, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 5
    assert render(scene.iloc[:2], 384, 144).shape == (2, 384, 144, 3)


def test_contact_sheet_places_images_row_by_row(images: np.ndarray) -> None:
    sheet = contact_sheet(images[:5], 3)
    assert sheet.shape == (2 * (HEIGHT + 2), 3 * (WIDTH + 2), 3)
    assert np.array_equal(sheet[HEIGHT + 2 : 2 * HEIGHT + 2, WIDTH + 2 : 2 * WIDTH + 2], images[4])
    assert (sheet[HEIGHT + 2 :, 2 * (WIDTH + 2) :] == 255).all()


def stamp() -> str:
    return drawing_stamp.__wrapped__()  # not the one of this process


def scaled(function, **factors: float):
    """`function` of a canvas and factors, with some factors multiplied: what another constant in it would draw."""

    def changed(canvas, columns, *others):
        return function(canvas, {**columns, **{name: by * columns[name] for name, by in factors.items()}}, *others)

    return changed


@pytest.mark.parametrize("kind", ["vis", "ir"])
@pytest.mark.parametrize("by", [0.9, 1.1])
def test_the_stamp_notices_softer_and_sharper_edges(kind: str, by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp()
    monkeypatch.setitem(synthetic_drawing.BLUR, kind, by * synthetic_drawing.BLUR[kind])
    assert stamp() != before


@pytest.mark.parametrize(
    ("function", "factors"),
    [
        ("_paint_background", {"background_contrast": 1.1}),  # panels and tiles
        ("_paint_background", {"background_frequency": 1.05}),
        ("_paint_background", {"background_horizon": 1.02}),
        ("_paint_occluder", {"occluder_size": 1.05}),
        ("_paint_occluder", {"occluder_shade": 0.9}),
        ("_expose", {"noise": 1.05}),
        ("_expose", {"light_gradient": 1.5}),
        ("_expose", {"tint_red": 1.01}),
    ],
)
def test_the_stamp_notices_how_scene_and_noise_are_drawn(
    function: str, factors: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stamp()
    monkeypatch.setattr(synthetic_drawing, function, scaled(getattr(synthetic_drawing, function), **factors))
    assert stamp() != before


@pytest.mark.parametrize("part", ["leg", "skirt", "torso", "hair", "head_and_hair", "arm", "bag", "straps"])
def test_the_stamp_notices_every_part_of_the_person(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp()
    monkeypatch.setattr(Person, part, lambda *_, **__: None)
    assert stamp() != before


@pytest.mark.parametrize(("constant", "by"), [("TALLEST", 1.01), ("INFRARED_PATTERN", 0.95)])
def test_the_stamp_notices_constants_of_the_person(constant: str, by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamp()
    monkeypatch.setattr(synthetic_person, constant, by * getattr(synthetic_person, constant))
    assert stamp() != before


def test_the_stamp_does_not_depend_on_the_last_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor's sine differs by one in ten million; ten times as much is added here before the exposure."""
    before, pixels = stamp(), render(synthetic_drawing._probes(), 48, 24)
    expose, random = synthetic_drawing._expose, np.random.default_rng(0)

    def disturbed(canvas, *others):
        canvas.planes += 2e-6 * random.uniform(-1, 1, canvas.planes.shape).astype(np.float32)
        return expose(canvas, *others)

    monkeypatch.setattr(synthetic_drawing, "_expose", disturbed)
    changed = 0
    for _ in range(10):
        changed += (render(synthetic_drawing._probes(), 48, 24) != pixels).sum()
        assert stamp() == before
    assert changed > 5


def test_no_number_of_the_stamp_lies_near_a_boundary_of_rounding() -> None:
    """A change of the drawing code can move one there. Then give `_PROBE_SEED` the seed with the largest distance."""
    numbers = synthetic_drawing._probe_numbers()
    levels = 12 * 4 * 3  # probes, quarters of the height, channels
    distance = np.abs(numbers % 1 - 0.5)
    assert len(numbers) == levels + 12 * 2
    assert (
        distance[:levels].min() * synthetic_drawing._LEVEL_STEP > 0.03
    )  # grey levels; one pixel moves a mean by 0.003
    assert distance[levels:].min() * synthetic_drawing._CONTRAST_STEP > 0.03


def test_the_probes_show_every_class_from_many_sides_in_both_modalities() -> None:
    probes = synthetic_drawing._probes()
    for kind, rows in probes.groupby("modality"):
        for name, words in SHARED_CLASSES.items():
            assert {words[code] for code in rows[name]} == set(words), (kind, name)
        assert set(rows["occluder"]) == {0, 1, 2} and rows["view"].nunique() == 6


def test_what_cannot_be_drawn_is_refused(listing: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="stature"):
        render(listing.drop(columns="stature"), HEIGHT, WIDTH)
    with pytest.raises(InputError, match="4 x 4"):
        render(listing, 4, 4)
    with pytest.raises(InputError, match="'thermal'"):
        render(listing.assign(modality="thermal"), HEIGHT, WIDTH)
