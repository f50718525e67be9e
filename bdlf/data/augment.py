"""Training augmentation of a whole batch at once, on the batch's device.

The steps are grey, crop, flip, exchange, normalise and erase. The result is that of the lineage's order (grey, crop,
flip, normalise, erase, exchange) [lineage]. `draw` draws the random numbers on the CPU, a few per image. `apply`
changes the pixels on the device that holds them, and the CPU does not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from bdlf.system.errors import InputError, check_choice

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, for each channel, with pixel values in 0..1."""
FILLS = {"caj": (0.4914, 0.4822, 0.4465), "imagenet": MEAN, "zero": (0.0, 0.0, 0.0)}
"""The values that erased pixels may take, by name: one for each channel, after normalisation [lineage].

CAJ, LUPI, SGIEL and BDLF take `caj`, DEEN takes `imagenet`, MMN takes `zero`.
"""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Range of height / width of an erased rectangle."""
ERASE_TRIES = 100
"""How many rectangles are drawn for an image, of which the first that fits is erased."""
RECOLOURINGS = ("none", "exchange", "always", "adaptive", "mix")
"""How a view may change colours.

- `exchange`: one channel, drawn uniformly, is copied to all three, with the probability of the augmentation.
- `always`: the same with probability 1 (CAJ's second visible view).
- `adaptive`: each channel with probability 1/4; else, half of the time, the luma of the normalised image (CAJ's
  infrared view).
- `mix`: a random weighted mean of the channels, rounded down, before the crop (LUPI's intermediate domain).
"""
LUMA = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue in the luma of a normalised image [lineage, CAJ]."""
GREY = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Weights of red, green and blue in a grey image: 0.299, 0.587 and 0.114 as Pillow rounds them. Their sum is 1."""


def normalize(
    images: UInt8[Tensor, "b h w 3"], *, out: Float[Tensor, "b 3 h w"] | None = None
) -> Float[Tensor, "b 3 h w"]:
    """(pixel / 255 - MEAN) / STD for each channel: float32 in channels-last memory order, on the images' device.

    `out`, an earlier result of this shape, is overwritten. This saves time, because new memory takes longer to get than
    the normalisation takes.
    """
    scale, shift = _constants(images.device)
    return _scaled(images, scale[None], shift[None], out)


def _constants(device: torch.device) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """scale and shift of each channel, with normalised = pixel x scale + shift and pixels in 0..255."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return _send(1 / (255 * std), device), _send(-mean / std, device)


def _scaled(
    images: UInt8[Tensor, "b h w 3"], scale: Float[Tensor, "n 3"], shift: Float[Tensor, "n 3"], out: Tensor | None
) -> Float[Tensor, "b 3 h w"]:
    """pixel x scale + shift, written to `out` if it is given. n is b, or 1 where all images share scale and shift."""
    rows, height, width, channels = images.shape
    if out is None:
        lines = torch.empty(rows, height, width * channels, device=images.device)
    else:
        lines = out.permute(0, 2, 3, 1).view(rows, height, width * channels)
    lines.copy_(images.reshape(rows, height, width * channels))
    torch.addcmul(shift.repeat(1, width)[:, None], lines, scale.repeat(1, width)[:, None], out=lines)
    return lines.view(rows, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Draws:
    """The random choices for each of b images, on the CPU. Sizes and positions are in pixels."""

    top: Int[Tensor, " b"]
    """First row of the crop in the padded image, 0 .. 2 pad. The value `pad` does not move the image."""
    left: Int[Tensor, " b"]
    """First column of the crop, likewise."""
    flip: Bool[Tensor, " b"]
    erase: Bool[Tensor, " b"]
    erase_box: Int[Tensor, "b 4"]
    """Top, left, height and width of the erased rectangle. Not used where `erase` is False."""
    exchange: Bool[Tensor, " b"]
    channel: Int[Tensor, " b"]
    """The channel, 0, 1 or 2, that is copied to the two others. Not used where `exchange` is False."""
    luma: Bool[Tensor, " b"]
    """Whether all channels become the luma of the normalised and erased image."""
    mixed: Bool[Tensor, " b"]
    """Whether all channels become one weighted mean of them, rounded down, before anything else happens."""
    weights: Float[Tensor, "b 3"]
    """The weights of that mean, which sum to 1. Not used where `mixed` is False."""
    grey: Bool[Tensor, " b"]
    """Whether all channels become the mean with the weights GREY, rounded to the nearest byte, before anything else
    happens. Never True where `mixed` is."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of CAJ as SGIEL uses it [lineage]. Every image and every step has independent random numbers.

    - `crop`: add `pad` zero pixels on each side and cut out the original size at a position drawn uniformly.
    - `flip`: the probability that an image is mirrored left to right.
    - `erase`: the probability that a rectangle is replaced by the values that `erase_fill` names in FILLS. The
      rectangle's area, as a share of the image, is uniform in `erase_area` (low, high), its aspect is uniform in
      ERASED_ASPECT, and its position is uniform. Up to ERASE_TRIES rectangles are drawn, until one is less high and
      less wide than the image; if none is, nothing is erased.
    - `exchange`: the probability that one channel, drawn uniformly, is copied to all three. This happens only in images
      whose view is recoloured by `exchange` (BDLF: the visible ones); see RECOLOURINGS.
    - `grey`: the probability that an image of either modality becomes grey before it is cropped (DEEN). Images of views
      that are recoloured by `mix` are grey already and stay as they are.

    A probability of 0 switches a step off. The same random numbers are drawn whatever is switched on, so switching one
    step off does not change the others. Raises `InputError` for a negative pad, a probability outside 0..1, an
    `erase_area` that is no range within 0..1, and an unknown `erase_fill`.
    """

    pad: int = 10
    crop: bool = True
    flip: float = 0.5
    erase: float = 0.5
    exchange: float = 0.5
    erase_area: Sequence[float] = (0.02, 0.4)
    erase_fill: str = "caj"
    grey: float = 0.0

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise InputError(f"augmentation pad={self.pad}: give 0 or more pixels")
        for name in ("flip", "erase", "exchange", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation {name}={getattr(self, name)}: give a probability, 0 to 1")
        area = list(self.erase_area)
        if not (len(area) == 2 and 0 < area[0] <= area[1] <= 1):
            raise InputError(f"augmentation erase_area={area}: give two shares of the image, 0 < low <= high <= 1")
        check_choice("augmentation erase_fill", self.erase_fill, FILLS)

    def __call__(
        self,
        images: UInt8[Tensor, "b h w 3"],
        recolour: Int[Tensor, " b"],
        generator: torch.Generator,
        *,
        erasable: Bool[Tensor, " b"] | None = None,
        out: Float[Tensor, "b 3 h w"] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Augmented and normalised images, in the form that `normalize` returns.

        - `recolour` holds the place in RECOLOURINGS of each image's recolouring.
        - `erasable` says which images may be erased or become grey; None stands for all. SGIEL's body-shape maps may
          not.
        - `out` is that of `normalize`.

        `recolour`, `erasable` and `generator` belong to the CPU.
        """
        _, height, width, _ = images.shape
        return self.apply(images, self.draw(height, width, recolour, generator, erasable=erasable), out=out)

    def draw(
        self,
        height: int,
        width: int,
        recolour: Int[Tensor, " b"],
        generator: torch.Generator,
        *,
        erasable: Bool[Tensor, " b"] | None = None,
    ) -> Draws:
        """The random choices for b images of `height` x `width` pixels. The other arguments are those of a call."""
        rows = len(recolour)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        def below(limit: int | Tensor) -> Tensor:
            """Whole numbers, uniform in 0 .. limit - 1."""
            return (uniform(rows) * limit).long()

        top, left = below(2 * self.pad + 1), below(2 * self.pad + 1)
        if not self.crop:
            top, left = torch.full_like(top, self.pad), torch.full_like(left, self.pad)
        flip = uniform(rows) < self.flip
        erase = uniform(rows) < self.erase
        h, w, fits = self._rectangles(height, width, uniform(rows, ERASE_TRIES), uniform(rows, ERASE_TRIES))
        box = torch.stack([below(height - h + 1), below(width - w + 1), h, w], dim=1)

        def recoloured(name: str) -> Tensor:
            return recolour == RECOLOURINGS.index(name)

        exchange = (uniform(rows) < self.exchange) & recoloured("exchange")
        channel = below(3)
        chance, weights = uniform(rows), uniform(rows, 3)
        grey = (uniform(rows) < self.grey) & ~recoloured("mix")  # drawn last, so that it changes none of the others
        exchange |= recoloured("always") | (recoloured("adaptive") & (chance < 0.75))
        luma = recoloured("adaptive") & (chance >= 0.75) & (chance < 0.875)
        weights /= weights.sum(dim=1, keepdim=True)
        erase &= fits
        if erasable is not None:
            erase, grey = erase & erasable, grey & erasable
        return Draws(top, left, flip, erase, box, exchange, channel, luma, recoloured("mix"), weights, grey)

    def _rectangles(
        self, height: int, width: int, areas: Float[Tensor, "b tries"], aspects: Float[Tensor, "b tries"]
    ) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"], Bool[Tensor, " b"]]:
        """The height and the width of the first of each image's rectangles that fits, and whether one does.

        `areas` and `aspects` are uniform random numbers in 0..1.
        """
        low, high = self.erase_area
        area = height * width * (low + (high - low) * areas)
        aspect = ERASED_ASPECT[0] + (ERASED_ASPECT[1] - ERASED_ASPECT[0]) * aspects
        heights, widths = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
        fits = (heights < height) & (widths < width)
        first = fits.int().argmax(dim=1, keepdim=True)
        return heights.gather(1, first).squeeze(1), widths.gather(1, first).squeeze(1), fits.any(dim=1)

    def apply(
        self, images: UInt8[Tensor, "b h w 3"], draws: Draws, *, out: Float[Tensor, "b 3 h w"] | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Augment and normalise the images as `draws` says. `out` is that of `normalize`.

        `draws` lies on the CPU, so the CPU knows which rows to change without waiting for the device.
        """
        device = images.device
        rows, height, width, channels = images.shape
        images = _one_channel(images, draws)

        # Crop and flip in one copy: `source` holds the padded images, and behind them the mirror images of those that
        # are flipped. Every line of the result is a run of `width` pixels of `source`.
        flipped = draws.flip.nonzero().squeeze(1)
        source = images.new_empty(rows + len(flipped), height + 2 * self.pad, width + 2 * self.pad, channels)
        for dim, size in ((1, height), (2, width)):
            source.narrow(dim, 0, self.pad).zero_()
            source.narrow(dim, self.pad + size, self.pad).zero_()
        inner = source[:, self.pad : self.pad + height, self.pad : self.pad + width]
        inner[:rows] = images
        inner[rows:] = images.index_select(0, _send(flipped, device)).flip(2)
        image, left = torch.arange(rows), torch.where(draws.flip, 2 * self.pad - draws.left, draws.left)
        image[flipped] = rows + torch.arange(len(flipped))
        stride, run = (width + 2 * self.pad) * channels, width * channels  # bytes
        first = (image * (height + 2 * self.pad) + draws.top) * stride + left * channels
        starts = _send(first, device)[:, None] + torch.arange(height, device=device) * stride
        runs = source.as_strided((source.numel() - run + 1, run), (1, 1))  # a view of all possible runs; they overlap
        cropped = runs.index_select(0, starts.flatten()).view(rows, height, width, channels)

        # An exchange copies pixels before normalisation. The copied channel keeps the constants of its original, so
        # that the result is the same as that of an exchange after normalisation.
        own = torch.arange(channels).repeat(rows, 1)  # (rows, 3): the original channel of each channel
        for row in draws.exchange.nonzero().squeeze(1).tolist():
            kept = int(draws.channel[row])
            own[row] = kept
            for channel in {0, 1, 2} - {kept}:
                cropped[row, :, :, channel] = cropped[row, :, :, kept]
        own = _send(own, device)
        scale, shift = _constants(device)
        x = _scaled(cropped, scale[own], shift[own], out)

        fill = _send(torch.tensor(FILLS[self.erase_fill]), device)[own][:, :, None, None]
        for row in draws.erase.nonzero().squeeze(1).tolist():
            top, left, h, w = draws.erase_box[row].tolist()
            x[row, :, top : top + h, left : left + w] = fill[row]
        for row in draws.luma.nonzero().squeeze(1).tolist():
            x[row] = (x[row] * _send(torch.tensor(LUMA), device)[:, None, None]).sum(dim=0)
        return x


def _one_channel(images: UInt8[Tensor, "b h w 3"], draws: Draws) -> UInt8[Tensor, "b h w 3"]:
    """The images, of which those that are `mixed` or `grey` have one mean of their channels in all three."""
    rows = (draws.mixed | draws.grey).nonzero().squeeze(1)
    if not len(rows):
        return images
    device, grey = images.device, draws.grey[rows, None]
    weights = torch.where(grey, torch.tensor(GREY, dtype=draws.weights.dtype), draws.weights[rows])
    on_device, rounding = _send(rows, device), _send(0.5 * grey, device)[:, None]
    means = (images.index_select(0, on_device) * _send(weights, device)[:, None, None]).sum(dim=3) + rounding
    return images.index_copy(0, on_device, means.floor().to(torch.uint8)[..., None].expand(-1, -1, -1, 3))


def _send(values: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it: the copy is queued behind the device's other work."""
    return values.to(device, non_blocking=True)
