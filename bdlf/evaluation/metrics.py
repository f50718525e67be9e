"""Computes CMC, mAP and mINP of a queries x gallery matrix of similarities, under the rule of a dataset.

The gallery is never ranked as a whole. The rank of a match is one more than the number of gallery images that come
before it, and a binary search in the row's sorted similarities finds that number. This costs less than comparing every
match with the whole row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bdlf.datasets import DATASETS
from bdlf.datasets.protocol import Rule
from bdlf.system.errors import InputError, check_choice

RULES = {dataset.protocol.rule.name: dataset.protocol.rule for dataset in DATASETS.values()}
"""What `protocol` can be: which gallery images a query does not see, and what CMC ranks."""
_HIDDEN = -np.inf
"""The similarity of a gallery image that is hidden from a query. All other similarities are finite."""
_BLOCK = 1 << 19
"""How many similarities are worked on at once, so that they fit into a processor's cache."""


@dataclass(frozen=True, eq=False)
class RetrievalMetrics:
    """Figures over the queries that have a match. All fractions are in 0..1."""

    cmc: np.ndarray
    """(max_rank,) share of the valid queries whose `first_match` is at most 1, 2, ..."""
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    valid_queries: int
    first_match: np.ndarray
    """(queries,) rank of the first match, from 1, among identities or images as the rule says; 0: no match."""
    average_precision: np.ndarray
    """(queries,) mean over the matches of (matches so far) / (images so far); NaN for a query without a match."""
    inverse_negative_penalty: np.ndarray
    """(queries,) matches / (rank of the last match among images); NaN for a query without a match."""


@dataclass(frozen=True, eq=False)
class _Gallery:
    """The columns of the gallery, grouped by identity. All queries share them."""

    identities: np.ndarray
    """(i,) ascending."""
    columns: np.ndarray
    """(i + 1, most) columns of each identity, ascending, then -1. The last row, for unknown identities, is all -1."""
    layers: list[np.ndarray]
    """The columns of the first, second, ... image of each identity that has one; identities with most images first."""


def retrieval_metrics(
    similarity: np.ndarray | Tensor,
    query_pids: np.ndarray | Tensor | Sequence,
    gallery_pids: np.ndarray | Tensor | Sequence,
    query_camids: np.ndarray | Tensor | Sequence | None = None,
    gallery_camids: np.ndarray | Tensor | Sequence | None = None,
    *,
    protocol: str,
    max_rank: int = 20,
) -> RetrievalMetrics:
    """Scores how well the similarities rank the gallery for each query.

    `similarity` is (queries, gallery), NumPy or torch on any device. Larger is closer, and nothing is rounded.
    Identities and cameras are whole numbers, one for each row or column.

    `protocol` names the rule of a dataset:
    - "sysu": a query of camera 3 does not see the gallery images of camera 2 (the same room), whatever their identity;
      CMC ranks identities, each at its best image. Needs cameras.
    - "llcm": a query does not see the gallery images of its own identity and camera number; CMC ranks identities.
      Needs cameras.
    - "regdb": every query sees the whole gallery; CMC ranks images. Cameras play no part.

    AP and INP rank images under every rule. Equal similarities rank in the order of the gallery's columns [ours: the
    order is then the same on every machine]. Queries that are left without a match are in no figure. Beyond the end of
    the gallery, the CMC keeps its last value.

    Raises InputError (a ValueError) on an unknown protocol, `max_rank` below 1, NaN or infinite similarities, an empty
    side, lengths that do not fit, identities or cameras that are not whole numbers, missing cameras, and where no query
    has a match.
    """
    if protocol not in RULES:
        raise InputError(f"unknown protocol {protocol!r}: known are {', '.join(RULES)}")
    rule = RULES[protocol]
    if max_rank < 1:
        raise InputError(f"max_rank is {max_rank}: the CMC needs at least rank 1")
    matrix = _checked_similarity(similarity)
    queries, images = matrix.shape
    query_ids = _checked_numbers("query_pids", query_pids, queries)
    gallery_ids = _checked_numbers("gallery_pids", gallery_pids, images)
    query_cameras = None if query_camids is None else _checked_numbers("query_camids", query_camids, queries)
    gallery_cameras = None if gallery_camids is None else _checked_numbers("gallery_camids", gallery_camids, images)
    cameras = None if query_cameras is None or gallery_cameras is None else (query_cameras, gallery_cameras)
    if rule.needs_cameras and cameras is None:
        raise InputError(f"protocol {protocol!r} needs query_camids and gallery_camids: it hides images by camera")
    return _summary(_of_each_query(matrix, query_ids, _grouped(gallery_ids), cameras, rule), protocol, max_rank)


def ranked_gallery(
    similarity: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_camids: np.ndarray,
    gallery_camids: np.ndarray,
    *,
    protocol: str,
    first: int = 10,
) -> np.ndarray:
    """(queries, first) the columns of the gallery images that each query ranks first, the closest one first.

    Images that the rule hides from a query are left out; -1 stands where a query sees no further image. Equal
    similarities rank in the order of the columns. The arguments are those of `retrieval_metrics`. Raises InputError on
    an unknown protocol and on similarities that `retrieval_metrics` refuses.
    """
    check_choice("protocol", protocol, RULES)
    block = _checked_similarity(similarity).copy()
    gallery = _grouped(gallery_pids)
    slot = np.minimum(np.searchsorted(gallery.identities, query_pids), len(gallery.identities) - 1)
    slot[gallery.identities[slot] != query_pids] = len(gallery.identities)
    _hide(block, gallery.columns[slot], query_camids, gallery_camids, RULES[protocol])
    order = np.argsort(-block, axis=1, kind="stable")[:, :first]
    seen = np.take_along_axis(block, order, axis=1) != _HIDDEN
    columns = np.full((len(block), first), -1)
    columns[:, : order.shape[1]] = np.where(seen, order, -1)
    return columns


class _OfEachQuery(NamedTuple):
    """What each query found; see the fields of `RetrievalMetrics`."""

    first_match: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray


def _of_each_query(
    matrix: np.ndarray,
    query_ids: np.ndarray,
    gallery: _Gallery,
    cameras: tuple[np.ndarray, np.ndarray] | None,
    rule: Rule,
) -> _OfEachQuery:
    """Rank the gallery for blocks of queries at a time, so that the working memory stays small.

    `cameras` are those of the queries and of the gallery.
    """
    queries, images = matrix.shape
    slot = np.minimum(np.searchsorted(gallery.identities, query_ids), len(gallery.identities) - 1)
    slot[gallery.identities[slot] != query_ids] = len(gallery.identities)
    result = _OfEachQuery(np.zeros(queries, dtype=np.int64), np.full(queries, np.nan), np.full(queries, np.nan))
    height = max(1, _BLOCK // images)
    for begin in range(0, queries, height):
        rows = slice(begin, begin + height)
        block = matrix[rows].copy()
        columns = gallery.columns[slot[rows]]
        if cameras is not None:
            _hide(block, columns, cameras[0][rows], cameras[1], rule)
        own = np.where(columns >= 0, np.take_along_axis(block, columns, axis=1), block.dtype.type(_HIDDEN))
        matches = np.count_nonzero(own != _HIDDEN, axis=1)
        valid = matches > 0
        if not valid.any():
            continue
        ranks = np.sort(_image_ranks(block, own, columns), axis=1)
        found = np.arange(1, ranks.shape[1] + 1)
        precision = np.where(found <= matches[:, None], found / ranks, 0.0)
        last = np.take_along_axis(ranks, matches[:, None] - 1, axis=1)[:, 0]
        first = ranks[:, 0] if rule.ranks == "images" else _first_identity_rank(block, own, columns, gallery)
        target = begin + np.flatnonzero(valid)
        result.first_match[target] = first[valid]
        result.average_precision[target] = precision.sum(axis=1)[valid] / matches[valid]
        result.inverse_negative_penalty[target] = matches[valid] / last[valid]
    return result


def _summary(found: _OfEachQuery, protocol: str, max_rank: int) -> RetrievalMetrics:
    """The means over the queries that have a match."""
    valid = found.first_match > 0
    if not valid.any():
        raise InputError(
            f"no query has a match in the gallery under protocol {protocol!r}: look at the identities and cameras"
        )
    return RetrievalMetrics(
        cmc=np.mean(found.first_match[valid, None] <= np.arange(1, max_rank + 1), axis=0),
        mAP=float(found.average_precision[valid].mean()),
        mINP=float(found.inverse_negative_penalty[valid].mean()),
        valid_queries=int(valid.sum()),
        **found._asdict(),
    )


def _hide(
    block: np.ndarray, columns: np.ndarray, query_cameras: np.ndarray, gallery_cameras: np.ndarray, rule: Rule
) -> None:
    """Hides, in place, the gallery images that the rule does not let a query see."""
    for query_camera, gallery_camera in rule.hidden_cameras:
        block[np.ix_(query_cameras == query_camera, gallery_cameras == gallery_camera)] = _HIDDEN
    if rule.hides_own_camera:
        row, position = np.nonzero((columns >= 0) & (gallery_cameras[columns] == query_cameras[:, None]))
        block[row, columns[row, position]] = _HIDDEN


def _image_ranks(block: np.ndarray, own: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(rows, most) ranks among images, from 1, of the matches, whose similarities are `own`. Hidden ones come last."""
    images = block.shape[1]
    ascending = np.sort(block, axis=1)
    not_closer = _count_not_above(ascending, own)  # this counts the match itself
    ranks: np.ndarray = images + 1 - not_closer
    below = np.take_along_axis(ascending, np.maximum(not_closer - 2, 0), axis=1)
    tied = (below == own) & (not_closer > 1) & (own != _HIDDEN)
    order = np.arange(images)
    for position in np.flatnonzero(tied.any(axis=0)):
        row = np.flatnonzero(tied[:, position])
        level = block[row] == own[row, position, None]
        ranks[row, position] += np.count_nonzero(level & (order < columns[row, position, None]), axis=1)
    return ranks


def _count_not_above(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many entries of each row are <= each of the row's `values`, by a binary search in all rows at once."""
    rows, length = ascending.shape
    flat = ascending.ravel()
    before = np.arange(rows)[:, None] * length - 1
    count = np.zeros(values.shape, dtype=np.int64)
    step = 1 << (length.bit_length() - 1)
    while step:
        probe = count + step
        inside = probe <= length
        count = np.where(inside & (flat[before + np.where(inside, probe, 1)] <= values), probe, count)
        step >>= 1
    return count


def _first_identity_rank(block: np.ndarray, own: np.ndarray, columns: np.ndarray, gallery: _Gallery) -> np.ndarray:
    """(rows,) rank of the query's identity, from 1, where each identity stands at the place of its best image.

    The value means nothing for a query whose matches are all hidden.
    """
    best = own.argmax(axis=1)[:, None]  # the first of equals, and columns ascend
    value = np.take_along_axis(own, best, axis=1)
    leaders = _best_of_identities(block, gallery)
    ahead = leaders > value
    tied = np.flatnonzero((np.count_nonzero(leaders == value, axis=1) > 1) & (value[:, 0] != _HIDDEN))
    if tied.size:
        column = np.take_along_axis(columns[tied], best[tied], axis=1)
        ahead[tied] |= _best_of_identities((block[tied] == value[tied]) & (np.arange(block.shape[1]) < column), gallery)
    rank: np.ndarray = 1 + np.count_nonzero(ahead, axis=1)
    return rank


def _best_of_identities(block: np.ndarray, gallery: _Gallery) -> np.ndarray:
    """(rows, i) the largest entry of each gallery identity (of booleans: any), in the order of `gallery.layers`."""
    best = block.take(gallery.layers[0], axis=1)
    for layer in gallery.layers[1:]:
        np.maximum(best[:, : len(layer)], block.take(layer, axis=1), out=best[:, : len(layer)])
    return best


def _grouped(gallery_ids: np.ndarray) -> _Gallery:
    identities, index, counts = np.unique(gallery_ids, return_inverse=True, return_counts=True)
    by_identity = np.argsort(index, kind="stable")
    position = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.full((len(identities) + 1, counts.max()), -1)
    columns[index[by_identity], position] = by_identity
    many_first = columns[np.argsort(-counts, kind="stable")]
    return _Gallery(identities, columns, [layer[layer >= 0] for layer in many_first.T])


def _checked_similarity(similarity: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(similarity, Tensor):
        similarity = similarity.detach().cpu()
        similarity = (similarity.float() if similarity.dtype == torch.bfloat16 else similarity).numpy()
    if similarity.ndim != 2:
        raise InputError(f"similarity has shape {similarity.shape}: it must be queries x gallery")
    if 0 in similarity.shape:
        raise InputError(f"similarity has shape {similarity.shape}: there must be a query and a gallery image")
    if similarity.dtype.kind not in "fiu":
        raise InputError(f"similarity holds {similarity.dtype}: it must be real numbers")
    if similarity.dtype not in (np.float32, np.float64):
        similarity = similarity.astype(np.float32 if similarity.dtype == np.float16 else np.float64)
    finite = np.isfinite(similarity)
    if not finite.all():
        query, image = np.argwhere(~finite)[0]
        raise InputError(
            f"similarity of query {query} and gallery image {image} is {similarity[query, image]}: mend the features"
        )
    return similarity


def _checked_numbers(name: str, numbers: np.ndarray | Tensor | Sequence, length: int) -> np.ndarray:
    array = numbers.detach().cpu().numpy() if isinstance(numbers, Tensor) else np.asarray(numbers)
    if array.shape != (length,):
        raise InputError(f"{name} has shape {array.shape} but similarity asks for ({length},): one number for each")
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} holds {array.dtype}: it must be whole numbers")
    return array.astype(np.int64)
