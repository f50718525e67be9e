"""The heat of each test image: where the comprehensive feature and the detail branch look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bdlf.data.augment import normalize
from bdlf.datasets.description import MODALITIES
from bdlf.experiment import Experiment
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import STAGES
from bdlf.networks.network import Network
from bdlf.runs.record import images_of
from bdlf.system.errors import InputError, check_choice

MAPS = {
    "gradient": "weighted by the gradient of the image's own feature, as no classifier knows test identities",
    "norm": "the length of the vector of channels at each position",
}
"""Values of `map`, and what each means."""
COMPREHENSIVE, DETAIL = "comprehensive", "detail"


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The heat of m images at each position of their maps, by the kind of map."""

    heat: dict[str, np.ndarray]
    """`comprehensive`, and `detail` if the network has a detail branch: float32 (m, h, w), at least 0."""
    rows: np.ndarray
    """(m,) rows of the run's table, ascending."""
    pids: np.ndarray
    modalities: np.ndarray
    stage: int
    """The stage of the backbone whose output is the comprehensive map, 1..4."""
    of: str
    """How a map (channels, h, w) becomes heat (h, w): one of `MAPS`."""


def attention_maps(
    run: Experiment, *, stage: int | None = None, of: str = "gradient", device: str | torch.device | None = None
) -> AttentionMaps:
    """The heat of every test image, of the network that the run's results report first.

    - The comprehensive map is the output of stage `stage` of the backbone, before pooling; 4 is the last stage. None
      stands for the last stage whose map has as many positions as the detail map, because the widths of maps of other
      sizes cannot be compared: 4 with `backbone.last_stride=1`, as in the paper. Without a detail map it is the last
      stage that the network computes. Of the several maps that DEEN and MMN make of an image, it is the image's own.
    - The detail map is the output of the invertible blocks of BDLF (Eq. 3), before pooling. Variants without blocks and
      other methods have none.
    - `of="gradient"`: Grad-CAM (Selvaraju et al. 2017). A channel's weight is the mean over the positions of the
      gradient of |F|^2 / 2, and the heat of a position is the weighted sum of its channels, at least 0. F is the
      feature that the run is scored with; for the detail map it is Z^D without the attention, which mixes images.
      Grad-CAM proper takes the score of a class, but the classifiers know no test identity [ours].
    - `of="norm"`: the heat of a position is the length of its vector of channels. For the detail map it is taken before
      the LayerNorm of the last block, which gives the vectors of all positions almost the same length.

    Raises InputError for an unknown stage or way, for a network without such a map, and for images that are not those
    of the run.
    """
    if stage is not None:
        check_choice("stage", stage, STAGES)
    check_choice("map", of, MAPS)
    recorded = getattr(run, "checkpoint", {}).get("fingerprint")
    if recorded is not None:
        run.folder.require_fingerprint(images_of(recorded), run.images_fingerprint)
    network = run.network
    where = next(network.parameters()).device if device is None else torch.device(device)
    network.to(where)
    network.eval()
    table, store = run.table, run.store(where)
    rows = np.flatnonzero(table["split"] == "test")
    modalities = table["modality"].to_numpy()[rows]
    size = run.scoring.batch_size
    if stage is None:
        stage = _stage_of_equal_size(network, normalize(store.take(rows[:1])), modalities[0])
    found: dict[str, list[np.ndarray]] = {}
    order = []
    with tqdm(total=len(rows), desc="attention", unit="img", disable=None, leave=False) as bar:
        for modality in MODALITIES:
            own = np.flatnonzero(modalities == modality)
            order.append(own)
            for images in store.batches(rows[own[begin : begin + size]] for begin in range(0, len(own), size)):
                for name, heat in _heat(network, normalize(images), modality, stage, of, run.scoring.feature).items():
                    found.setdefault(name, []).append(heat.cpu().numpy())
                bar.update(len(images))
    places = np.argsort(np.concatenate(order))
    heats = {name: np.concatenate(parts)[places] for name, parts in found.items()}
    return AttentionMaps(heats, rows, table["pid"].to_numpy()[rows], modalities, stage, of)


def _heat(network: Network, images: Tensor, modality: str, stage: int, of: str, feature: str) -> dict[str, Tensor]:
    """The heat (rows, h, w) of images of one modality; see `attention_maps`."""
    stages = {stage, network.stage} if isinstance(network, BDLF) else {stage}
    with torch.set_grad_enabled(of == "gradient"), _outputs(network, stages) as outputs:
        embedded = network.embed(images, modality, feature)
    if stage not in outputs:
        raise InputError(f"stage={stage}: this network computes no such stage; take another stage=")
    maps = outputs[stage]
    heat = {COMPREHENSIVE: (_norm(maps) if of == "norm" else _gradient(maps, embedded))[: len(images)]}
    if _has_blocks(network):
        assert isinstance(network, BDLF)
        heat[DETAIL] = _heat_of_blocks(network, outputs[network.stage].detach(), modality, of)
    return heat


def _has_blocks(network: Network) -> bool:
    return isinstance(network, BDLF) and network.detail is not None and network.detail.chain is not None


@torch.no_grad()
def _stage_of_equal_size(network: Network, image: Tensor, modality: str) -> int:
    """The last stage whose map has the size of the output of the blocks; without blocks the last one there is."""
    assert isinstance(network, nn.Module)
    with _outputs(network, set(STAGES)) as outputs:
        network.embed(image, modality)
    if not _has_blocks(network):
        return max(outputs)
    assert isinstance(network, BDLF)
    return max(stage for stage in STAGES if outputs[stage].shape[2:] == outputs[network.stage].shape[2:])


def _heat_of_blocks(network: BDLF, intermediate: Tensor, modality: str, of: str) -> Tensor:
    detail = network.detail
    assert detail is not None
    assert detail.chain is not None
    kept: list[Tensor] = []
    hook = detail.chain.couplings[-1].register_forward_hook(lambda *given: kept.append(given[-1]))
    with torch.no_grad():
        maps = detail.maps(intermediate)
    hook.remove()
    if of == "norm":
        return _norm(kept[0])
    maps.requires_grad_()
    norm = detail.norms[list(MODALITIES).index(modality) % len(detail.norms)]
    return _gradient(maps, norm(detail.widen(maps.mean((2, 3)))))


@contextmanager
def _outputs(network: Network, stages: set[int]) -> Iterator[dict[int, Tensor]]:
    """What these stages of the ResNet inside any network compute in the block, by stage.

    With gradients switched on, the output of the first of `stages` is where they end.
    """
    assert isinstance(network, nn.Module)
    outputs: dict[int, Tensor] = {}
    hooks = []

    def keep(stage: int, output: Tensor) -> Tensor:
        if torch.is_grad_enabled() and stage == min(stages):
            output = output.detach().requires_grad_()
        outputs[stage] = output
        return output

    for name, module in network.named_modules():
        found = re.search(r"(?:^|\.)layer([1-4])$", name)
        if found is not None and int(found[1]) in stages and not isinstance(module, nn.Identity):
            stage = int(found[1])
            hooks.append(module.register_forward_hook(lambda _, __, output, stage=stage: keep(stage, output)))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _norm(maps: Tensor) -> Tensor:
    lengths: Tensor = maps.float().norm(dim=1)
    return lengths


def _gradient(maps: Tensor, feature: Tensor) -> Tensor:
    """Grad-CAM of half the squared length of `feature`, (rows, c), on `maps`, (rows, channels, h, w)."""
    (gradient,) = torch.autograd.grad(feature.square().sum() / 2, maps)
    heat: Tensor = torch.einsum("nchw,nc->nhw", maps, gradient.mean((2, 3))).clamp(min=0).detach().float()
    return heat
