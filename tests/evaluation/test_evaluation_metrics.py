"""`retrieval_metrics` against a full sort that is searched rank by rank, and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from bdlf.evaluation import RetrievalMetrics, retrieval_metrics
from bdlf.evaluation import metrics as module
from bdlf.system.errors import InputError

PROTOCOLS = ("sysu", "regdb", "llcm")


def walk(similarity, query_pids, gallery_pids, query_camids, gallery_camids, protocol, max_rank):
    """Sort the gallery for each query, strike out what is hidden, and walk from the top."""
    first_match, precisions, penalties = [], [], []
    for query, pid in enumerate(query_pids):
        ranking = sorted(range(len(gallery_pids)), key=lambda image: (-similarity[query][image], image))
        if protocol == "sysu":
            ranking = [g for g in ranking if not (query_camids[query] == 3 and gallery_camids[g] == 2)]
        if protocol == "llcm":
            ranking = [g for g in ranking if not (gallery_pids[g] == pid and gallery_camids[g] == query_camids[query])]
        hits = [place for place, image in enumerate(ranking, start=1) if gallery_pids[image] == pid]
        if not hits:
            first_match.append(0)
            precisions.append(np.nan)
            penalties.append(np.nan)
            continue
        identities = list(dict.fromkeys(gallery_pids[image] for image in ranking))
        first_match.append(hits[0] if protocol == "regdb" else identities.index(pid) + 1)
        precisions.append(sum(count / place for count, place in enumerate(hits, start=1)) / len(hits))
        penalties.append(len(hits) / hits[-1])
    valid = [rank for rank in first_match if rank]
    cmc = [sum(rank <= k for rank in valid) / max(len(valid), 1) for k in range(1, max_rank + 1)]
    return cmc, first_match, precisions, penalties


def agrees_with_walk(problem, protocol, max_rank=20) -> bool:
    """Whether there was anything to compare: without a valid query the refusal is what is checked."""
    cmc, first_match, precisions, penalties = walk(*problem, protocol, max_rank)
    if not any(first_match):
        with pytest.raises(InputError, match="no query has a match"):
            retrieval_metrics(*problem, protocol=protocol, max_rank=max_rank)
        return False
    result = retrieval_metrics(*problem, protocol=protocol, max_rank=max_rank)
    np.testing.assert_array_equal(result.first_match, first_match)
    np.testing.assert_allclose(result.average_precision, precisions, rtol=1e-12)
    np.testing.assert_allclose(result.inverse_negative_penalty, penalties, rtol=1e-12)
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
    assert result.cmc.shape == (max_rank,)
    assert result.mAP == pytest.approx(np.nanmean(precisions), rel=1e-12)
    assert result.mINP == pytest.approx(np.nanmean(penalties), rel=1e-12)
    assert result.valid_queries == np.count_nonzero(first_match)
    return True


def small_problem(seed):
    """1..6 queries, 1..10 images, few identities, cameras, levels: ties, hidden images, unmatched queries abound."""
    rng = np.random.default_rng(seed)
    queries, images = rng.integers(1, 7), rng.integers(1, 11)
    similarity = rng.integers(rng.integers(1, 9), size=(queries, images)).astype(np.float32) / 4 - 1
    return similarity, *(rng.integers(1, 5, size=size) for size in (queries, images, queries, images))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@budget(max_examples=500, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), max_rank=st.integers(1, 12))
def test_equals_the_walk_on_small_problems_with_ties(protocol, seed, max_rank):
    agrees_with_walk(small_problem(seed), protocol, max_rank)


def random_problem(seed, queries=40, images=60, levels=None):
    """Identities 0..11 in the queries, 2..14 in the gallery, in any order; `levels`: so many different similarities."""
    rng = np.random.default_rng(seed)
    similarity = (
        rng.standard_normal((queries, images)) if levels is None else rng.integers(levels, size=(queries, images))
    )
    return (
        similarity.astype(np.float32),
        rng.integers(12, size=queries),
        rng.integers(2, 15, size=images),
        rng.choice([3, 6, 2], queries),
        rng.choice([1, 2, 3, 4], images),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("levels", [None, 1, 2, 30])
def test_equals_the_walk_across_blocks(protocol, levels, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7 * 60)  # 40 queries of 60 images: six blocks, the last one short
    assert all(agrees_with_walk(random_problem(seed, levels=levels), protocol) for seed in range(10))


def test_sysu_by_hand():
    gallery_pids, gallery_camids = [1, 1, 2, 2, 3, 3, 1], [1, 2, 2, 1, 4, 5, 4]
    similarity = np.array(
        [
            [0.5, 0.99, 0.9, 0.4, 0.8, 0.7, 0.3],  # camera 3: without columns 1, 2; images 3 and 5, second identity
            [0.1, 0.2, 0.3, 0.6, 0.5, 0.7, 0.4],  # camera 6: images 2 and 5, second identity
            [0.1, 0.95, 0.2, 0.3, 0.9, 0.05, 0.4],  # camera 3: images 1 and 5
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],  # an identity that the gallery lacks
        ]
    )
    result = retrieval_metrics(
        similarity, [1, 2, 3, 9], gallery_pids, [3, 6, 3, 6], gallery_camids, protocol="sysu", max_rank=3
    )
    np.testing.assert_array_equal(result.first_match, [2, 2, 1, 0])
    np.testing.assert_allclose(result.average_precision, [11 / 30, 0.45, 0.7, np.nan])
    np.testing.assert_allclose(result.inverse_negative_penalty, [0.4, 0.4, 0.4, np.nan])
    np.testing.assert_allclose(result.cmc, [1 / 3, 1, 1])
    assert (result.mAP, result.mINP, result.valid_queries) == (pytest.approx(91 / 180), pytest.approx(0.4), 3)


def test_regdb_by_hand():
    similarity = np.array(
        [
            [0.9, 0.8, 0.7, 0.6, 0.5],  # images 2 and 4
            [0.1, 0.5, 0.5, 0.5, 0.5],  # equal to three before it: image 4
            [0.9, 0.8, 0.5, 0.1, 0.1],  # images 1 and 3
        ]
    )
    result = retrieval_metrics(similarity, [1, 3, 2], [2, 1, 2, 1, 3], protocol="regdb", max_rank=7)
    np.testing.assert_array_equal(result.first_match, [2, 4, 1])
    np.testing.assert_allclose(result.average_precision, [1 / 2, 1 / 4, 5 / 6])
    np.testing.assert_allclose(result.inverse_negative_penalty, [1 / 2, 1 / 4, 2 / 3])
    np.testing.assert_allclose(result.cmc, [1 / 3, 2 / 3, 2 / 3, 1, 1, 1, 1])  # a gallery of 5: the last value goes on
    assert (result.mAP, result.mINP, result.valid_queries) == (pytest.approx(19 / 36), pytest.approx(17 / 36), 3)


def test_llcm_by_hand():
    gallery_pids, gallery_camids = [1, 2, 2, 1, 3, 1], [1, 1, 2, 2, 3, 3]
    similarity = np.tile([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], (3, 1))
    # Identity 1 in camera 1 loses column 0: images 3 and 5, second identity. Identity 2 in camera 2 loses column 2:
    # image 2, second identity. Identity 3 in camera 3 loses its only image.
    result = retrieval_metrics(
        similarity, [1, 2, 3], gallery_pids, [1, 2, 3], gallery_camids, protocol="llcm", max_rank=2
    )
    np.testing.assert_array_equal(result.first_match, [2, 2, 0])
    np.testing.assert_allclose(result.average_precision, [11 / 30, 1 / 2, np.nan])
    np.testing.assert_allclose(result.inverse_negative_penalty, [2 / 5, 1 / 2, np.nan])
    np.testing.assert_allclose(result.cmc, [0, 1])
    assert (result.mAP, result.mINP, result.valid_queries) == (pytest.approx(13 / 30), pytest.approx(0.45), 2)


def assert_same(one: RetrievalMetrics, other: RetrievalMetrics, queries=slice(None)):
    np.testing.assert_array_equal(one.first_match[queries], other.first_match)
    np.testing.assert_array_equal(one.average_precision[queries], other.average_precision)
    np.testing.assert_array_equal(one.inverse_negative_penalty[queries], other.inverse_negative_penalty)
    np.testing.assert_array_equal(one.cmc, other.cmc)
    assert one.mAP == pytest.approx(other.mAP, rel=1e-14)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_order_names_and_scale_do_not_matter(protocol):
    similarity, query_pids, gallery_pids, query_camids, gallery_camids = random_problem(1)
    straight = retrieval_metrics(
        similarity, query_pids, gallery_pids, query_camids, gallery_camids, protocol=protocol, max_rank=9
    )
    assert 0 < straight.cmc[0] < straight.cmc[-1] and straight.valid_queries < len(query_pids)
    rng = np.random.default_rng(2)
    q, g, names = rng.permutation(len(query_pids)), rng.permutation(len(gallery_pids)), rng.permutation(15)
    shuffled = retrieval_metrics(
        similarity[q][:, g],
        names[query_pids[q]],
        names[gallery_pids[g]],
        query_camids[q],
        gallery_camids[g],
        protocol=protocol,
        max_rank=9,
    )
    assert_same(straight, shuffled, q)
    for scaled in (np.exp(similarity.astype(np.float64)), 3 * similarity.astype(np.float64) - 100):
        assert_same(
            straight,
            retrieval_metrics(
                scaled, query_pids, gallery_pids, query_camids, gallery_camids, protocol=protocol, max_rank=9
            ),
        )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "convert",
    [
        lambda s: s.astype(np.float64),
        lambda s: s.astype(np.float16),
        lambda s: (4 * s).astype(np.int32),
        lambda s: np.asfortranarray(s),
        lambda s: torch.from_numpy(s.copy()).requires_grad_(),
        lambda s: torch.from_numpy(s.copy()).double(),
        lambda s: torch.from_numpy(s.copy()).bfloat16(),
    ],
)
def test_any_kind_of_number_gives_the_same(protocol, convert):
    similarity, *labels = random_problem(3, levels=40)
    similarity = similarity / 4 - 3
    before = similarity.copy()
    straight = retrieval_metrics(similarity, *labels, protocol=protocol)
    np.testing.assert_array_equal(similarity, before)  # hiding is done on a copy
    assert_same(straight, retrieval_metrics(convert(similarity), *labels, protocol=protocol))


def test_labels_of_any_kind_give_the_same():
    similarity, *labels = random_problem(4)
    straight = retrieval_metrics(similarity, *labels, protocol="llcm")
    for convert in (torch.from_numpy, lambda label: label.astype(np.uint16), np.ndarray.tolist):
        assert_same(straight, retrieval_metrics(similarity, *map(convert, labels), protocol="llcm"))


@pytest.mark.parametrize("similarity", [np.array([[1.0, 1.0 + 1e-12]]), np.array([[2**24, 2**24 + 1]])])
def test_nothing_is_rounded_to_float32(similarity):
    result = retrieval_metrics(similarity, [1], [0, 1], protocol="regdb")
    assert result.first_match.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "market"}, "unknown protocol 'market': known are sysu, regdb, llcm"),
        ({"max_rank": 0}, "max_rank is 0"),
        ({"similarity": np.array([[0.0, 1.0], [np.nan, 0.0]])}, "query 1 and gallery image 0 is nan"),
        ({"similarity": torch.tensor([[0.0, 1.0], [0.0, -torch.inf]])}, "query 1 and gallery image 1 is -inf"),
        ({"similarity": np.zeros((0, 2)), "query_pids": []}, "there must be a query and a gallery image"),
        ({"similarity": np.zeros((2, 0)), "gallery_pids": []}, "there must be a query and a gallery image"),
        ({"similarity": np.zeros(2)}, "must be queries x gallery"),
        ({"similarity": np.zeros((2, 2, 1))}, "must be queries x gallery"),
        ({"similarity": np.zeros((2, 2), dtype=complex)}, "must be real numbers"),
        ({"query_pids": [1]}, r"query_pids has shape \(1,\)"),
        ({"gallery_pids": [1, 2, 3]}, r"gallery_pids has shape \(3,\)"),
        ({"query_pids": [[1], [2]]}, r"query_pids has shape \(2, 1\)"),
        ({"query_camids": [1, 2, 3]}, r"query_camids has shape \(3,\)"),
        ({"gallery_camids": [1]}, r"gallery_camids has shape \(1,\)"),
        ({"query_pids": [1.5, 2.0]}, "query_pids holds float64"),
        ({"gallery_camids": ["1", "2"]}, "gallery_camids holds"),
        ({"protocol": "sysu", "query_camids": None}, "'sysu' needs query_camids and gallery_camids"),
        ({"protocol": "llcm", "gallery_camids": None}, "'llcm' needs query_camids and gallery_camids"),
        ({"query_pids": [7, 8]}, "no query has a match"),
        ({"protocol": "llcm", "gallery_camids": [5, 6]}, "no query has a match"),
    ],
)
def test_refuses(change, message):
    arguments = {
        "similarity": np.eye(2),
        "query_pids": [1, 2],
        "gallery_pids": [1, 2],
        "query_camids": [5, 6],
        "gallery_camids": [1, 2],
        "protocol": "regdb",
    }
    with pytest.raises(InputError, match=message) as caught:
        retrieval_metrics(**{**arguments, **change})
    assert "\n" not in str(caught.value)
