"""Streams of random numbers depend on their seed and name alone, and leave other generators as they are."""

from __future__ import annotations

import hashlib

import pytest
import torch

from bdlf.networks.streams import stream


def drawn(seed: int, name: str) -> torch.Tensor:
    with stream(seed, name):
        return torch.randn(20)


def test_a_stream_is_seeded_with_the_hash_of_seed_and_name():
    digest = hashlib.sha256(b"12/fusion.Pq").hexdigest()
    expected = torch.randn(20, generator=torch.Generator().manual_seed(int(digest[:16], 16)))
    assert torch.equal(drawn(12, "fusion.Pq"), expected)


def test_streams_of_different_seeds_or_names_differ():
    found = [drawn(seed, name) for seed in (0, 1, 10, 2**40, 2**41) for name in ("a", "b", "0/a", "coupling1")]
    for k, one in enumerate(found):
        assert not any(torch.equal(one, other) for other in found[:k])


def test_the_global_generator_goes_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(5)
    expected = torch.randn(4)
    torch.manual_seed(5)
    drawn(0, "a")
    with pytest.raises(KeyError), stream(1, "b"):
        torch.randn(1)
        raise KeyError
    assert torch.equal(torch.randn(4), expected)


def test_a_stream_within_a_stream_leaves_the_outer_one_alone():
    with stream(0, "outer"):
        first = torch.randn(3)
        inner = drawn(0, "inner")
        rest = torch.randn(17)
    with stream(0, "outer"):
        assert torch.equal(torch.randn(3), first) and torch.equal(torch.randn(17), rest)
    assert torch.equal(inner, drawn(0, "inner"))


def test_generators_of_gpus_are_not_seeded(monkeypatch):
    def seeded(_: int) -> None:
        raise AssertionError("every GPU was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    with pytest.raises(AssertionError):
        torch.manual_seed(0)  # what the stream must not use
    drawn(0, "a")
