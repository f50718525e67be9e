"""The loop against the same steps written out, and one test for what each of its lines is for."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from bdlf.config.schema import Dfe
from bdlf.data.augment import Augmentation
from bdlf.data.batches import Batches, generator
from bdlf.data.images import Images
from bdlf.data.sampler import IdentitySampler
from bdlf.methods.bdlf import BDLF
from bdlf.networks.backbone import Backbone
from bdlf.objective import Objective
from bdlf.training.ema import Averaged
from bdlf.training.loop import Progress, Recipe, fit
from bdlf.training.nonfinite import NonFiniteError
from bdlf.training.step import Learner

NUMBERS = {generator(0, number // 2, number % 2).initial_seed(): number for number in range(16)}
"""Of the steps of a run, by the seed of their augmentation."""
TERMS = {"id": 1.0, "tri": 1.0, "id_base": 1.0, "skd": 1.0, "id_detail": 1.0, "orth": 1.0}


class Run:
    def __init__(
        self, *, precision: str = "32-true", clip: float | None = 10.0, scales=(1.0, 1.0, 1.0), lr: float = 0.01
    ):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        self.store = rng.integers(0, 256, (24, 32, 16, 3), dtype=np.uint8)
        pids = np.repeat(np.arange(4), 4)
        self.rows = np.arange(8, 24)  # training images are not at the start of the store
        self.sampler = IdentitySampler(pids, np.tile(["vis", "vis", "ir", "ir"], 4), identities=2, images=2, steps=2)
        self.objective = Objective(TERMS, ramp=0.5)
        self.fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        self.network = BDLF(
            Backbone("resnet10"),
            4,
            features=self.objective.features,
            logits=self.objective.logits,
            dfe=Dfe(blocks=1),
        )
        groups = zip(self.network.parameter_groups().values(), scales, strict=True)
        self.model = self.fabric.setup_module(self.network)
        parts = [{"params": parameters, "lr_scale": scale} for parameters, scale in groups]
        self.optimizer = torch.optim.SGD(parts, lr=lr, momentum=0.9, fused=True)
        self.averaged = Averaged(self.network, 0.9)
        self.recipe = Recipe(epochs=3, lr=lr, warmup_epochs=2, milestones=(2,), on_nonfinite="stop")
        self.clip = clip
        self.seen: list[torch.Tensor] = []
        self.augmentation = Augmentation(pad=2)
        self.now = -1  # number of the step that is being taken, over all epochs

    def fit(self, **options):
        class Spy(Augmentation):
            def __call__(spy, images, recolour, generator, *, erasable=None, out=None):  # noqa: N805 (`self` is the run)
                assert recolour.tolist() == [1] * 4 + [0] * 4
                self.now = NUMBERS[generator.initial_seed()]
                self.seen.append(images.clone())
                out = super().__call__(images, recolour, generator, erasable=erasable, out=out)
                self.seen.append(out.clone())
                return out

        learner = Learner(
            self.fabric, self.network, self.model, self.optimizer, self.objective, self.averaged, self.clip
        )
        images = Images(self.store, "cpu")
        batches = Batches(self.sampler, images, self.rows, Spy(pad=2), self.network.views, seed=0)
        return fit(learner, batches, self.recipe, **options)

    def epochs(self, count: int = 1):
        steps = self.fit()
        return [next(steps).record for _ in range(count)]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.state_dict().items()}


def test_rates_follow_the_schedule_and_the_groups():
    run = Run(scales=(0.1, 1.0, 0.5))
    records = run.epochs(3)
    assert [record["lr"] for record in records] == pytest.approx([0.005, 0.01, 0.001])
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([0.0001, 0.001, 0.0005])
    frozen = Run(scales=(0.0, 1.0, 1.0))
    before = weights(frozen)
    frozen.epochs(1)
    after = weights(frozen)
    assert torch.equal(before["backbone.resnet.conv1.weight"], after["backbone.resnet.conv1.weight"])
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_clipping_bounds_the_step_and_the_norm_is_logged_unclipped():
    free, tight = Run(clip=None), Run(clip=1e-4)
    start = weights(free)
    norm = free.epochs(1)[0]["gradient_norm"]
    assert tight.epochs(1)[0]["gradient_norm"] > 1e-2 < norm
    moved = [
        sum(float((weights(run)[name] - start[name]).square().sum()) for name, _ in run.network.named_parameters())
        for run in (free, tight)
    ]
    assert moved[1] < 1e-6 * moved[0]
    assert moved[1] ** 0.5 <= 0.005 * 1e-4 * (1 + 1.9) * 1.01  # two steps with momentum


def test_batches_are_the_samplers_and_each_step_has_its_own_augmentation():
    run = Run()
    run.epochs(2)
    batches = run.seen[::2]
    expected = [pair.reshape(-1) for epoch in range(2) for pair in run.sampler.epoch(epoch)]
    for images, batch in zip(batches, expected, strict=True):
        assert np.array_equal(images.numpy(), run.store[run.rows[batch]])
    constant = Run()
    constant.store[:] = 100
    constant.epochs(2)
    outputs = constant.seen[1::2]
    assert all(not torch.equal(outputs[i], outputs[j]) for i in range(4) for j in range(i))


def test_bf16_gives_the_losses_of_float32_within_its_precision():
    exact, mixed = Run().epochs(1)[0], Run(precision="bf16-mixed").epochs(1)[0]
    for name in ("id", "id_base", "orth"):
        assert mixed[name] == pytest.approx(exact[name], rel=0.05, abs=1e-3)
    assert mixed["id"] != exact["id"]


def test_nothing_is_left_on_the_parameters():
    run = Run()
    run.epochs(2)
    assert not any(parameter._backward_hooks for parameter in run.network.parameters())


def test_the_average_follows_the_raw_model():
    run = Run()
    run.epochs(1)
    raw, mean = run.network.classifier.weight, run.averaged.module.classifier.weight
    assert int(run.averaged.n_averaged) == 2 and not torch.equal(raw, mean)


def state(run: Run) -> list[torch.Tensor]:
    momenta = [state["momentum_buffer"] for state in run.optimizer.state_dict()["state"].values()]
    return [*weights(run).values(), *run.averaged.state_dict().values(), *momenta]


@pytest.mark.parametrize("at", [(0, 1), (1, 1), (1, 0), (2, 1)])
def test_training_goes_on_from_any_step_bit_for_bit(at):
    whole, first, second = Run(), Run(), Run()
    records = [progress.record for progress in whole.fit()]
    reached = next(p for p in first.fit(pause=lambda: True) if (p.epoch, p.step) == at)
    second.network.load_state_dict(first.network.state_dict())
    second.averaged.load_state_dict(first.averaged.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    stored = Progress.of(reached.state())
    assert stored == reached and stored.record is None
    rest = [progress.record for progress in second.fit(start=stored)]
    times = ("seconds", "images_per_second")
    assert [{k: v for k, v in record.items() if k not in times} for record in rest] == [
        {k: v for k, v in record.items() if k not in times} for record in records[at[0] :]
    ]
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(second), strict=True))


def poison(run: Run, steps: set[int], where: str) -> None:
    """Put NaN into the steps of these numbers: into a layer's output, a loss term, or a gradient."""

    def spoil(module, inputs, output):
        return output * float("nan") if run.now in steps else output

    layer = run.network.backbone.resnet.layer2[0].conv2
    if where == "layer":
        layer.register_forward_hook(spoil)
    elif where == "gradient":
        layer.weight.register_hook(lambda gradient: gradient * float("nan") if run.now in steps else gradient)
    else:
        objective = run.objective

        class Spoilt:
            terms, teacher = objective.terms, objective.teacher

            def __call__(self, *arguments):
                found = objective(*arguments)
                if run.now in steps:
                    found.values["skd"].fill_(float("inf"))
                return found

        run.objective = Spoilt()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("layer", r"id is .*, first in layer backbone\.resnet\.layer2\.0\.conv2; "),
        ("term", r"skd is .*, every layer's output is finite; "),
        ("gradient", r"the gradient's norm is .*, nearest to the loss that of backbone\.resnet\.layer2\.0\.conv2\."),
    ],
)
@pytest.mark.parametrize(("number", "look_every"), [(2, None), (0, None), (2, 2), (0, 2)])
def test_a_step_that_is_not_finite_is_named_and_changes_nothing(where, message, number, look_every):
    run, clean = Run(), Run()
    if number:
        clean.epochs(1)
    poison(run, {number}, where)
    with pytest.raises(NonFiniteError, match=message) as caught:
        list(run.fit(look_every=look_every))
    place = rf"not finite at epoch {number // 2}, step 0 \(identities \d, \d\)"
    assert re.search(place, str(caught.value))
    if not number:
        momenta = [one["momentum_buffer"] for one in run.optimizer.state.values()]
        assert momenta and not any(momentum.any() for momentum in momenta), "they start at zero, not at anything"
        return
    assert all(torch.equal(a, b) for a, b in zip(state(clean), state(run), strict=True))


@pytest.mark.parametrize("where", ["layer", "term", "gradient"])
def test_a_skipped_step_is_counted_and_as_if_it_had_not_been(where, caplog):
    run = Run()
    run.recipe = replace(run.recipe, on_nonfinite="skip")
    before = []
    poison(run, {1, 4}, where)
    for _ in run.fit(pause=lambda: True):
        before.append(state(run))
    assert len(before) == 6
    assert all(torch.equal(a, b) for a, b in zip(before[0], before[1], strict=True)), "the second step changed nothing"
    assert all(torch.equal(a, b) for a, b in zip(before[3], before[4], strict=True))
    assert caplog.text.count("step skipped") == 2

    again = Run()
    again.recipe = replace(again.recipe, on_nonfinite="skip")
    poison(again, {1, 4}, where)
    records = again.epochs(3)
    assert [record["skipped_steps"] for record in records] == [1, 0, 1]
    alone = next(Run().fit(pause=lambda: True)).sums
    assert all(records[0][name] == pytest.approx(value) for name, value in alone.items()), "the mean of what was done"


def test_when_the_host_looks_changes_nothing():
    """Steps after one that was not finite have been launched by then: they are taken anew.

    The first epoch begins with such a step, the second has none, the third has two in a row and ends with one.
    """
    NUMBERS.update({generator(0, k // 5, k % 5).initial_seed(): k for k in range(15)})

    def run(**options):
        one = Run()
        one.sampler = IdentitySampler(
            np.repeat(np.arange(4), 4), np.tile(["vis", "vis", "ir", "ir"], 4), identities=2, images=2, steps=5
        )
        one.recipe = replace(one.recipe, on_nonfinite="skip")
        poison(one, {0, 11, 12, 14}, "layer")
        records = [progress.record for progress in one.fit(**options)]
        return state(one), [{k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in records]

    tensors, records = run()
    assert [record["skipped_steps"] for record in records] == [1, 0, 3]
    for look_every in (2, 4, 50):
        others, other_records = run(look_every=look_every)
        assert other_records == records, look_every
        assert all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True)), look_every


def test_an_epoch_of_skipped_steps_has_no_means():
    run = Run()
    run.recipe = replace(run.recipe, on_nonfinite="skip")
    poison(run, {0, 1}, "term")
    records = run.epochs(2)
    assert "id" not in records[0] and records[0]["skipped_steps"] == 2 and "id" in records[1]


def test_ten_skipped_steps_in_a_row_stop_the_run():
    run = Run()
    run.recipe = replace(run.recipe, on_nonfinite="skip", epochs=8)
    poison(run, {0, *range(2, 16)}, "term")
    done = []
    with pytest.raises(NonFiniteError, match="10 steps in a row were skipped"):
        done += [progress.epoch for progress in run.fit()]
    run = Run()
    run.recipe = replace(run.recipe, on_nonfinite="skip", epochs=8)
    poison(run, {0, *range(2, 11), *range(12, 16)}, "term")
    assert [progress.epoch for progress in run.fit()][-1] == 8
