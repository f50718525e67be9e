"""Training augmentation of a whole batch at once, on the batch's device.

Crop, flip, normalise, erase, exchange, in this order [lineage]. The random numbers are drawn on the CPU (`draw`), a
few per image; the pixels are touched where they lie (`apply`), with no loop over images and no wait for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from bdlf.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, per channel, of pixels in 0..1."""
FILL = (0.4914, 0.4822, 0.4465)
"""What erasing writes, per channel, after normalisation [lineage, CAJ]."""
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASE_TRIES = 100


def normalize(images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """(pixel / 255 - MEAN) / STD per channel, contiguous float32, on the images' device."""
    x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    mean, std = _per_channel(MEAN, images.device), _per_channel(STD, images.device)
    return x.mul_(1 / (255 * std)).sub_(mean / std)


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
        self, images: UInt8[Tensor, "b h w 3"], visible_rows: int, generator: torch.Generator
    ) -> Float[Tensor, "b 3 h w"]:
        """Augmented and normalised images. Rows 0 .. visible_rows - 1 are visible; `generator` is the CPU's."""
        rows, height, width, _ = images.shape
        return self.apply(images, self.draw(rows, height, width, visible_rows, generator))

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

    def apply(self, images: UInt8[Tensor, "b h w 3"], draws: Draws) -> Float[Tensor, "b 3 h w"]:
        """Does to the images what was drawn. Which rows that concerns the CPU knows: nothing waits for the device."""
        device = images.device
        rows, height, width, channels = images.shape

        # Crop and flip are one copy of runs of `width` pixels out of the padded images; a flipped image's runs come
        # from its mirror image, which is put behind the batch.
        flipped = draws.flip.nonzero().squeeze(1)
        padded = F.pad(images, (0, 0, *(self.pad,) * 4))
        source = torch.cat([padded, padded.index_select(0, _send(flipped, device)).flip(2)])
        image, left = torch.arange(rows), torch.where(draws.flip, 2 * self.pad - draws.left, draws.left)
        image[flipped] = rows + torch.arange(len(flipped))
        stride, run = (width + 2 * self.pad) * channels, width * channels  # bytes
        first = (image * (height + 2 * self.pad) + draws.top) * stride + left * channels
        starts = _send(first, device)[:, None] + torch.arange(height, device=device) * stride
        runs = source.as_strided((source.numel() - run + 1, run), (1, 1))  # every possible run; they overlap
        cropped = runs.index_select(0, starts.flatten()).view(rows, height, width, channels)

        x = normalize(cropped)

        erased = draws.erase.nonzero().squeeze(1)
        top, left, h, w = _send(draws.erase_box[erased], device)[:, :, None].unbind(1)
        y, z = torch.arange(height, device=device), torch.arange(width, device=device)
        inside = ((y >= top) & (y < top + h))[:, None, :, None] & ((z >= left) & (z < left + w))[:, None, None, :]
        erased = _send(erased, device)
        x[erased] = torch.where(inside, _per_channel(FILL, device), x.index_select(0, erased))

        exchanged = draws.exchange.nonzero().squeeze(1)
        planes = _send(exchanged * channels + draws.channel[exchanged], device)
        x[_send(exchanged, device)] = x.flatten(0, 1).index_select(0, planes)[:, None]
        return x


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return _send(torch.tensor(values), device)[:, None, None]


def _send(values: Tensor, device: torch.device) -> Tensor:
    """To the device, behind the work that is queued there instead of waiting for it."""
    return values.to(device, non_blocking=True)
