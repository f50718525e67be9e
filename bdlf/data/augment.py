"""Training augmentation of a whole batch at once, on the batch's device.

Crop, flip, normalise, erase, exchange, in this order [lineage]. The random numbers are drawn on the CPU (`draw`), a
few per image; the pixels are touched where they lie (`apply`), without a wait for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from bdlf.system.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, per channel, of pixels in 0..1."""
FILL = (0.4914, 0.4822, 0.4465)
"""What erasing writes, per channel, after normalisation [lineage, CAJ]."""
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASE_TRIES = 100


def normalize(
    images: UInt8[Tensor, "b h w 3"], *, out: Float[Tensor, "b 3 h w"] | None = None
) -> Float[Tensor, "b 3 h w"]:
    """(pixel / 255 - MEAN) / STD per channel: float32 in channels-last order, on the images' device.

    The memory of an earlier result of this shape can be given as `out`: fresh memory costs more than the work.
    """
    scale, shift = _constants(images.device)
    return _scaled(images, scale[None], shift[None], out)


def _constants(device: torch.device) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """Normalised = pixel x scale + shift."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return _send(1 / (255 * std), device), _send(-mean / std, device)


def _scaled(
    images: UInt8[Tensor, "b h w 3"], scale: Float[Tensor, "n 3"], shift: Float[Tensor, "n 3"], out: Tensor | None
) -> Float[Tensor, "b 3 h w"]:
    """pixel x scale + shift; n is b, or 1 for all images."""
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
    """What happens to each of b images, on the CPU; sizes and positions in pixels."""

    top: Int[Tensor, " b"]
    """First row of the crop in the padded image, 0 .. 2 pad; `pad` leaves the image where it is."""
    left: Int[Tensor, " b"]
    flip: Bool[Tensor, " b"]
    erase: Bool[Tensor, " b"]
    erase_box: Int[Tensor, "b 4"]
    """Top, left, height, width; means nothing where `erase` is False."""
    exchange: Bool[Tensor, " b"]
    channel: Int[Tensor, " b"]
    """0, 1 or 2: what is copied to all three; means nothing where `exchange` is False."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of CAJ as SGIEL uses it [lineage]: each image on its own, all draws independent.

    `crop`: zero-pad by `pad` pixels and cut the original size out, every position alike. `flip`, `erase`, `exchange`:
    the probability of each; 0 switches it off. An erased rectangle has an area uniform in ERASED_AREA of the image and
    an aspect (height / width) uniform in ERASED_ASPECT, drawn up to 100 times until it is less high and less wide than
    the image (else nothing is erased), and lies anywhere inside, every position alike. An exchange copies one channel,
    each as likely, to all three, in visible images only.

    The same numbers are drawn whatever is switched on, so that switching one off changes nothing of the others.
    Raises `InputError` for a negative pad or a probability outside 0..1.
    """

    pad: int = 10
    crop: bool = True
    flip: float = 0.5
    erase: float = 0.5
    exchange: float = 0.5

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise InputError(f"augmentation pad={self.pad}: give 0 or more pixels")
        for name in ("flip", "erase", "exchange"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation {name}={getattr(self, name)}: give a probability, 0 to 1")

    def __call__(
        self,
        images: UInt8[Tensor, "b h w 3"],
        visible_rows: int,
        generator: torch.Generator,
        *,
        out: Float[Tensor, "b 3 h w"] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Augmented and normalised images, as `normalize` gives them.

        Rows 0 .. visible_rows - 1 are visible; `generator` is the CPU's. `out` is of `normalize`.
        """
        rows, height, width, _ = images.shape
        return self.apply(images, self.draw(rows, height, width, visible_rows, generator), out=out)

    def draw(self, rows: int, height: int, width: int, visible_rows: int, generator: torch.Generator) -> Draws:
        """The random numbers for `rows` images of height x width, the first `visible_rows` of them visible."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        def below(limit: int | Tensor) -> Tensor:
            """Whole numbers 0 .. limit - 1, all alike."""
            return (uniform(rows) * limit).long()

        top, left = below(2 * self.pad + 1), below(2 * self.pad + 1)
        if not self.crop:
            top, left = torch.full_like(top, self.pad), torch.full_like(left, self.pad)
        flip = uniform(rows) < self.flip
        erase = uniform(rows) < self.erase

        # All 100 tries at once; the first that fits counts.
        area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * uniform(rows, ERASE_TRIES))
        aspect = ERASED_ASPECT[0] + (ERASED_ASPECT[1] - ERASED_ASPECT[0]) * uniform(rows, ERASE_TRIES)
        heights, widths = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
        fits = (heights < height) & (widths < width)
        first = fits.int().argmax(dim=1, keepdim=True)
        h, w = heights.gather(1, first).squeeze(1), widths.gather(1, first).squeeze(1)
        box = torch.stack([below(height - h + 1), below(width - w + 1), h, w], dim=1)

        exchange = (uniform(rows) < self.exchange) & (torch.arange(rows) < visible_rows)
        return Draws(top, left, flip, erase & fits.any(dim=1), box, exchange, below(3))

    def apply(
        self, images: UInt8[Tensor, "b h w 3"], draws: Draws, *, out: Float[Tensor, "b 3 h w"] | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Does to the images what was drawn. Which rows that concerns the CPU knows: nothing waits for the device."""
        device = images.device
        rows, height, width, channels = images.shape

        # Crop and flip are one copy of runs of `width` pixels out of the padded images; a flipped image's runs come
        # from its mirror image, which is put behind the batch.
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
        runs = source.as_strided((source.numel() - run + 1, run), (1, 1))  # every possible run; they overlap
        cropped = runs.index_select(0, starts.flatten()).view(rows, height, width, channels)

        # An exchange copies pixels, and the constants with them: a channel is normalised as what it was.
        own = torch.arange(channels).repeat(rows, 1)  # (rows, 3): which channel each one shows
        for row in draws.exchange.nonzero().squeeze(1).tolist():
            kept = int(draws.channel[row])
            own[row] = kept
            for channel in {0, 1, 2} - {kept}:
                cropped[row, :, :, channel] = cropped[row, :, :, kept]
        own = _send(own, device)
        scale, shift = _constants(device)
        x = _scaled(cropped, scale[own], shift[own], out)

        fill = _send(torch.tensor(FILL), device)[own][:, :, None, None]
        for row in draws.erase.nonzero().squeeze(1).tolist():
            top, left, h, w = draws.erase_box[row].tolist()
            x[row, :, top : top + h, left : left + w] = fill[row]
        return x


def _send(values: Tensor, device: torch.device) -> Tensor:
    """To the device, behind the work that is queued there instead of waiting for it."""
    return values.to(device, non_blocking=True)
