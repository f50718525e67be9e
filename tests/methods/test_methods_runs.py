"""Runs of every method but the paper's: what they train, that they are scored, and that they go on bit for bit."""

from __future__ import annotations

import json
import signal

import pandas as pd
import pytest
import torch

from bdlf.methods import METHODS
from bdlf.terms import TERMS
from bdlf.training import loop
from bdlf.training.checkpoint import load_checkpoint

OWN_TERMS = {
    "agw": {"id", "wrt"},
    "caj": {"id", "sqd"},
    "lupi": {"id", "tri_dual", "colour_free"},
    "deen": {"id", "tri", "cpm", "ort"},
    "mmn": {"id_parts", "tri_middle", "dcl"},
    "sgiel": {"id", "tri", "okl", "id_shape", "id_erased", "kl_erased", "related", "ortho"},
}
WORDS = {"mmn": ("method.mmn.parts=2",)}
"""What the tiny images ask for: their last map has two rows."""
QUICK = "sgiel"
"""It has everything that others lack: silhouettes, a teacher, and weights that follow gradients."""


def test_every_method_is_here():
    assert ["bdlf", *OWN_TERMS] == list(METHODS)


@pytest.mark.parametrize(
    "method", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OWN_TERMS]
)
def test_a_run_trains_its_terms_alone_is_scored_and_goes_on_bit_for_bit(tiny_run, method, tmp_path, monkeypatch):
    # A tiny run has one block of DFE, which another method refuses.
    words = (f"method={method}", "dfe.blocks=6", "deterministic=true", *WORDS.get(method, ()))
    code, _, err = tiny_run(*words)
    assert code == 0, err
    (folder,) = (tmp_path / "out" / "synthetic").glob(f"{method}-*/seed0")
    table = pd.read_csv(folder / "metrics.csv")
    assert set(table) & set(TERMS) == OWN_TERMS[method]
    assert table[list(OWN_TERMS[method])].notna().all(axis=None)
    result = json.loads((folder / "result.json").read_text())
    assert result["label"] == method and all(row["mean"]["mAP"] > 0 for row in result["metrics"])

    again = (*words, f"output={tmp_path}/again")
    with monkeypatch.context() as patch:
        interrupt_in_the_first_step(patch)
        assert tiny_run(*again)[0] == 75
    code, out, err = tiny_run(*again)
    assert code == 0 and "going on at epoch 1 of 2, step 2 of 2" in out, err
    (other,) = (tmp_path / "again" / "synthetic").glob(f"{method}-*/seed0")
    whole, resumed = (load_checkpoint(one / "checkpoints" / "last.pt") for one in (folder, other))
    for part in ("model", "averaged"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items()), part


def interrupt_in_the_first_step(monkeypatch) -> None:
    """Raise SIGINT, as Ctrl-C does, when a training step begins. The run stops behind this step."""
    original = loop.Stepper.step

    def interrupted(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(loop.Stepper, "step", interrupted)
