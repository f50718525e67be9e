from __future__ import annotations

import math
import random
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, chisquare, ks_2samp

from bdlf.data.augment import MEAN, RECOLOURINGS, STD, Augmentation, Draws, normalize
from bdlf.system.errors import InputError

SIZES = [(64, 32), (384, 144)]


def leading(count: int, of: int) -> torch.Tensor:
    """The first `count` of so many rows exchange channels, the others keep their colours."""
    return (torch.arange(of) < count).long()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(rows, height, width, seed=0):
    return torch.randint(0, 256, (rows, height, width, 3), dtype=torch.uint8, generator=generator(seed))


def one_by_one(images, draws, pad, fill=(0.4914, 0.4822, 0.4465)):
    """What the draws mean, an image and a step at a time. Greying is Pillow's."""
    results = []
    for k, image in enumerate(images.numpy()):
        if draws.grey[k]:
            image = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
        if draws.mixed[k]:
            image = np.repeat(np.floor(image @ draws.weights[k].numpy())[:, :, None], 3, axis=2)
        height, width, _ = image.shape
        padded = np.zeros((height + 2 * pad, width + 2 * pad, 3))
        padded[pad : pad + height, pad : pad + width] = image
        top, left = int(draws.top[k]), int(draws.left[k])
        crop = padded[top : top + height, left : left + width]
        if draws.flip[k]:
            crop = crop[:, ::-1]
        x = (crop / 255 - MEAN) / STD
        if draws.erase[k]:
            top, left, h, w = draws.erase_box[k].tolist()
            x[top : top + h, left : left + w] = fill
        if draws.exchange[k]:
            x = np.repeat(x[:, :, draws.channel[k], None], 3, axis=2)
        if draws.luma[k]:
            x = np.repeat((x @ [0.2989, 0.5870, 0.1140])[:, :, None], 3, axis=2)
        results.append(x.transpose(2, 0, 1))
    return torch.tensor(np.stack(results))


@pytest.mark.parametrize("pad", [0, 1, 10])
@pytest.mark.parametrize(("height", "width"), [(64, 32), (9, 31)])
def test_a_batch_is_what_each_image_alone_would_be(height, width, pad):
    images = batch(40, height, width)
    kept = images.clone()
    augmentation = Augmentation(pad=pad)
    draws = augmentation.draw(height, width, leading(25, 40), generator())
    for name in ("flip", "erase", "exchange"):
        assert 0 < getattr(draws, name).sum() < 40
    result = augmentation.apply(images, draws)
    torch.testing.assert_close(result.double(), one_by_one(images, draws, pad), rtol=0, atol=2e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, kept)
    memory = torch.full_like(result, torch.nan)
    again = augmentation(images, leading(25, len(images)), generator(), out=memory)
    assert torch.equal(again, result) and again.data_ptr() == memory.data_ptr()


def test_every_combination_of_steps_in_their_order():
    images, pad = batch(128, 20, 12), 3
    bits = torch.arange(128)
    draws = Draws(
        top=torch.full((128,), 6),
        left=torch.full((128,), 1),
        flip=bits & 1 > 0,
        erase=bits & 2 > 0,
        erase_box=torch.tensor([[1, 2, 10, 5]]).repeat(128, 1),
        exchange=bits & 4 > 0,
        channel=bits % 3,
        luma=bits & 16 > 0,
        mixed=bits & 32 > 0,
        weights=torch.tensor([[0.47131, 0.21297, 0.31572]], dtype=torch.float64).repeat(128, 1),
        grey=(bits & 64 > 0) & ~(bits & 32 > 0),
    )
    draws = replace(draws, top=torch.where(bits & 8 > 0, 0, 6))
    for name, fill in {"caj": (0.4914, 0.4822, 0.4465), "imagenet": (0.485, 0.456, 0.406), "zero": (0, 0, 0)}.items():
        result = Augmentation(pad=pad, erase_fill=name).apply(images, draws)
        torch.testing.assert_close(result.double(), one_by_one(images, draws, pad, fill), rtol=0, atol=2e-6)


def test_none_and_all_of_a_step_and_an_image_of_one_pixel():
    for probability in (0.0, 1.0):
        augmentation = Augmentation(flip=probability, erase=probability, exchange=probability)
        for rows, height, width in ((3, 20, 12), (1, 1, 1)):
            images = batch(rows, height, width)
            draws = augmentation.draw(height, width, leading(rows, rows), generator())
            expected = one_by_one(images, draws, 10)
            torch.testing.assert_close(augmentation.apply(images, draws).double(), expected, rtol=0, atol=2e-6)


def test_normalised_pixels_and_padding():
    images = batch(5, 7, 6)
    expected = (images.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(normalize(images).double(), expected.permute(0, 3, 1, 2), rtol=0, atol=2e-6)
    assert normalize(images).is_contiguous(memory_format=torch.channels_last)
    memory = torch.full((5, 3, 7, 6), torch.nan).to(memory_format=torch.channels_last)
    assert torch.equal(normalize(images, out=memory), normalize(images)) and torch.equal(memory, normalize(images))
    off = Augmentation(pad=7, flip=0.0, erase=0.0, exchange=0.0)
    draws = replace(off.draw(7, 6, leading(5, 5), generator()), top=torch.zeros(5, dtype=torch.int64))
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(off.apply(images, draws)[:, :, :7], black[None, :, None, None].expand(5, 3, 7, 6))


@pytest.mark.parametrize("off", ["crop", "flip", "erase", "exchange", "grey"])
def test_each_step_can_be_switched_off_and_changes_nothing_of_the_others(off):
    on = Augmentation(grey=0.5)
    full = on.draw(64, 32, leading(50, 50), generator())
    switched = replace(on, **{off: False if off == "crop" else 0.0}).draw(64, 32, leading(50, 50), generator())
    if off == "crop":
        assert (switched.top == 10).all()
        assert (switched.left == 10).all()
    else:
        assert not getattr(switched, off).any()
    for name in (field.name for field in fields(Draws)):
        if name != off and not (off == "crop" and name in ("top", "left")):
            assert torch.equal(getattr(full, name), getattr(switched, name)), name
    everything_off = Augmentation(crop=False, flip=0.0, erase=0.0, exchange=0.0)
    images = batch(4, 8, 6)
    assert torch.equal(everything_off(images, leading(4, 4), generator()), normalize(images))


def test_the_draw_is_the_generators_alone():
    images, augmentation = batch(30, 16, 12), Augmentation(pad=2)
    torch.manual_seed(0)
    first = augmentation(images, leading(15, len(images)), generator(5))
    torch.manual_seed(1)
    assert torch.equal(augmentation(images, leading(15, len(images)), generator(5)), first)
    assert not torch.equal(augmentation(images, leading(15, len(images)), generator(6)), first)
    going_on = generator(5)
    augmentation(images, leading(15, len(images)), going_on)
    assert not torch.equal(augmentation(images, leading(15, len(images)), going_on), first)


@pytest.fixture(scope="module")
def many():
    return Augmentation().draw(64, 32, leading(15000, 20000), generator(1))


def test_crops_are_even_over_all_positions(many):
    for offsets in (many.top, many.left):
        assert chisquare(torch.bincount(offsets, minlength=21)).pvalue > 1e-4
        assert offsets.max() == 20
    assert abs(np.corrcoef(many.top, many.left)[0, 1]) < 0.03


def test_rates_of_flip_and_exchange_and_the_infrared_half(many):
    assert binomtest(int(many.flip.sum()), 20000, 0.5).pvalue > 1e-4
    assert binomtest(int(many.exchange[:15000].sum()), 15000, 0.5).pvalue > 1e-4
    assert not many.exchange[15000:].any()
    assert chisquare(torch.bincount(many.channel[many.exchange], minlength=3)).pvalue > 1e-4
    steps = np.stack([many.flip[:15000], many.erase[:15000], many.exchange[:15000]])
    assert np.abs(np.corrcoef(steps) - np.eye(3)).max() < 0.04
    rates = Augmentation(flip=0.1, erase=0.2, exchange=0.9).draw(64, 32, leading(20000, 20000), generator())
    for drawn, rate in ((rates.flip, 0.1), (rates.erase, 0.2), (rates.exchange, 0.9)):
        assert binomtest(int(drawn.sum()), 20000, rate).pvalue > 1e-4


def erase_loop(height, width, rng, low=0.02, high=0.4):
    """Random erasing as published: retried until the rectangle is smaller than the image both ways."""
    for _ in range(100):
        area = rng.uniform(low, high) * height * width
        aspect = rng.uniform(0.3, 1 / 0.3)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return None


@pytest.mark.parametrize("area", [(0.02, 0.4), (0.2, 0.8)])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_erased_rectangles_follow_the_published_loop(height, width, area):
    draws = Augmentation(erase=1.0, erase_area=area).draw(height, width, leading(0, 30000), generator(2))
    assert draws.erase.all()
    ours = draws.erase_box.numpy()
    rng = random.Random(0)
    theirs = np.array([erase_loop(height, width, rng, *area) for _ in range(30000)])
    for measure in (
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 2],
        lambda box: box[:, 3],
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
        lambda box: box[:, 0] / (height - box[:, 2]),
        lambda box: box[:, 1] / (width - box[:, 3]),
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3
    assert (ours[:, 2] < height).all()
    assert (ours[:, 3] < width).all()
    assert (ours[:, 0] + ours[:, 2]).max() == height, "the last position counts"
    assert (ours[:, 1] + ours[:, 3]).max() == width


def test_erasing_happens_half_the_time_and_as_often_as_something_fits(many):
    assert binomtest(int(many.erase.sum()), 20000, 0.5).pvalue > 1e-4
    # On an image 2 pixels wide only a width of 1 fits, which a flat one hardly ever gets.
    draws = Augmentation(erase=1.0).draw(2, 40, leading(0, 4000), generator())
    rng = random.Random(1)
    loop = [erase_loop(2, 40, rng) for _ in range(4000)]
    assert draws.erase.float().mean() == pytest.approx(np.mean([box is not None for box in loop]), abs=0.02)


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="pad=-1"):
        Augmentation(pad=-1)
    for name in ("flip", "erase", "exchange", "grey"):
        with pytest.raises(InputError, match=f"{name}=1.5: give a probability"):
            Augmentation(**{name: 1.5})
    for area in [(), (0.2,), (0.1, 0.2, 0.3), (0.4, 0.2), (0.0, 0.4), (0.2, 1.1), (math.nan, 0.4), (0.2, math.nan)]:
        with pytest.raises(InputError, match=r"erase_area=.*: give two shares of the image, 0 < low <= high <= 1"):
            Augmentation(erase_area=area)
    assert Augmentation(erase_area=[1.0, 1.0]).draw(8, 8, leading(0, 4), generator()).erase.sum() == 0, "too large"
    with pytest.raises(InputError, match="erase_fill='white' is not known; known: caj, imagenet, zero"):
        Augmentation(erase_fill="white")


def test_every_recolouring_is_what_each_image_alone_would_be():
    images, codes = batch(200, 12, 10), torch.arange(200) % len(RECOLOURINGS)
    augmentation = Augmentation(pad=3)
    draws = augmentation.draw(12, 10, codes, generator(3))
    assert all(0 < getattr(draws, name).sum() < 200 for name in ("exchange", "luma", "mixed"))
    assert (draws.luma & draws.erase).any() and (draws.mixed & draws.erase).any()
    expected = one_by_one(images, draws, 3)
    torch.testing.assert_close(augmentation.apply(images, draws).double(), expected, rtol=0, atol=2e-6)


def test_recolourings_are_drawn_at_their_rates_and_in_their_own_images_alone():
    names = {name: torch.full((20000,), code) for code, name in enumerate(RECOLOURINGS)}
    drawn = {name: Augmentation(exchange=0.3).draw(64, 32, codes, generator(5)) for name, codes in names.items()}
    rates = {name: [float(getattr(one, kind).double().mean()) for kind in ("exchange", "luma", "mixed")]
             for name, one in drawn.items()}  # fmt: skip
    assert rates["none"] == [0, 0, 0] and rates["always"] == [1, 0, 0] and rates["mix"] == [0, 0, 1]
    assert rates["exchange"][1:] == [0, 0] and abs(rates["exchange"][0] - 0.3) < 0.015
    assert abs(rates["adaptive"][0] - 0.75) < 0.015 and abs(rates["adaptive"][1] - 0.125) < 0.012
    assert rates["adaptive"][2] == 0 and not (drawn["adaptive"].exchange & drawn["adaptive"].luma).any()
    assert chisquare(torch.bincount(drawn["always"].channel)).pvalue > 1e-4
    weights = drawn["mix"].weights
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(20000, dtype=torch.float64))
    u = torch.rand(20000, 3, generator=generator(8), dtype=torch.float64)
    assert ks_2samp(weights[:, 1], (u / u.sum(dim=1, keepdim=True))[:, 0]).pvalue > 1e-4
    for name, one in drawn.items():  # whatever the recolouring, all other draws are the same
        assert torch.equal(one.erase_box, drawn["none"].erase_box) and torch.equal(one.left, drawn["none"].left), name


def test_a_mixed_grey_image_stays_what_it_is_up_to_the_floor():
    grey = batch(30, 8, 6)[..., :1].expand(-1, -1, -1, 3).contiguous()
    augmentation = Augmentation(crop=False, flip=0.0, erase=0.0)
    result = augmentation(grey, torch.full((30,), RECOLOURINGS.index("mix")), generator())
    step = (normalize(grey) - result) * torch.tensor(STD)[:, None, None] * 255
    assert step.min() > -1e-3 and step.max() < 1 + 1e-3


def test_grey_images_are_those_of_pillow_in_both_modalities_and_a_grey_image_stays_what_it_is():
    codes = torch.arange(400) % len(RECOLOURINGS)
    augmentation = Augmentation(pad=3, grey=0.5)
    images, draws = batch(400, 12, 10), augmentation.draw(12, 10, codes, generator(3))
    for code, name in enumerate(RECOLOURINGS):
        drawn = int(draws.grey[codes == code].sum())
        assert drawn == 0 if name == "mix" else 20 < drawn < 60, name
    assert (draws.grey & draws.erase & draws.exchange).any()
    expected = one_by_one(images, draws, 3)
    torch.testing.assert_close(augmentation.apply(images, draws).double(), expected, rtol=0, atol=2e-6)
    grey = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3).contiguous()
    always = Augmentation(crop=False, flip=0.0, erase=0.0, exchange=0.0, grey=1.0)
    assert torch.equal(always(grey, torch.zeros(256).long(), generator()), normalize(grey))
    rates = Augmentation(grey=0.3).draw(8, 8, torch.zeros(20000).long(), generator())
    assert binomtest(int(rates.grey.sum()), 20000, 0.3).pvalue > 1e-4
    steps = np.stack([rates.flip, rates.erase, rates.grey])
    assert np.abs(np.corrcoef(steps) - np.eye(3)).max() < 0.04


def test_images_that_may_not_be_erased_are_neither_erased_nor_grey_and_the_others_are_what_they_were():
    augmentation = Augmentation(erase=0.8, grey=0.7, erase_area=(0.2, 0.8), erase_fill="zero")
    images, codes = batch(60, 16, 12), torch.zeros(60).long()
    erasable = torch.arange(60) % 3 > 0
    everywhere = augmentation.draw(16, 12, codes, generator(1))
    draws = augmentation.draw(16, 12, codes, generator(1), erasable=erasable)
    assert (everywhere.erase & ~erasable).any() and (everywhere.grey & ~erasable).any()
    assert torch.equal(draws.erase, everywhere.erase & erasable)
    assert torch.equal(draws.grey, everywhere.grey & erasable)
    for name in (field.name for field in fields(Draws) if field.name not in ("erase", "grey")):
        assert torch.equal(getattr(draws, name), getattr(everywhere, name)), name
    result = augmentation(images, codes, generator(1), erasable=erasable)
    torch.testing.assert_close(result.double(), one_by_one(images, draws, 10, (0, 0, 0)), rtol=0, atol=2e-6)
    untouched = Augmentation(erase=0.0)(images, codes, generator(1))
    assert torch.equal(result[~erasable], untouched[~erasable])
    every = augmentation(images, codes, generator(1), erasable=codes == 0)
    assert torch.equal(every, augmentation(images, codes, generator(1)))


def test_the_numbers_of_the_default_augmentation_are_those_that_they_have_always_been():
    """Every recorded run was trained with such numbers. New ones have to be drawn after them."""
    draws = Augmentation().draw(64, 32, torch.arange(6) % 5, generator(7))
    assert draws.top.tolist() == [5, 5, 18, 13, 19, 17] and draws.left.tolist() == [6, 11, 16, 15, 1, 1]
    assert draws.flip.long().tolist() == [1, 1, 1, 0, 1, 0] and draws.erase.long().tolist() == [1, 0, 0, 0, 0, 1]
    assert draws.erase_box[[0, 5]].tolist() == [[12, 5, 49, 15], [40, 7, 14, 7]]
    assert draws.exchange.long().tolist() == [0, 0, 1, 1, 0, 0] and draws.channel.tolist() == [1, 1, 2, 0, 1, 0]
    assert draws.weights[4].tolist() == pytest.approx([0.36055419681, 0.30444148656, 0.33500431662])
    assert not draws.grey.any()
