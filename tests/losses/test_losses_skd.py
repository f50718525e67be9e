"""The specific-shared term: its three forms as functions of the two correlations, and on features."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from bdlf.losses import correlation, specific_shared, specific_shared_from_correlations
from bdlf.system.errors import InputError

BASES = [-1.0, -0.3, 0.0, 0.05, 0.1, 0.5, 0.9, 1.0]
DETAILS = [-1.0, 0.0, 0.01, 0.3, 0.999, 1 - 1e-6, 1.0, 1 + 1e-7]


def cube_root(x: float) -> float:
    return math.copysign(abs(x) ** (1 / 3), x)


def slow_skd(base: float, detail: float, form: str, delta: float, gamma: float) -> float:
    log_base = math.log(base) if base > 0.1 else math.log(0.1) + 10 * (base - 0.1)
    if form == "stable":
        return -log_base / cube_root(delta - math.log(min(max(detail, 0.01), 1)))
    if form == "outside":
        return log_base / (cube_root(math.log(min(max(detail, 0.01), 1 - 1e-4))) - gamma)
    return math.log(base) / (cube_root(math.log(detail)) + gamma)


def at(
    base: float, detail: float, form: str = "stable", dtype: torch.dtype = torch.float64, **options: float
) -> tuple[float, ...]:
    """The value of the term, and its derivatives by the two correlations."""
    inputs = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in (base, detail)]
    loss = specific_shared_from_correlations(*inputs, form=form, **options)
    return loss.item(), *(slope.item() for slope in grad(loss, inputs))


@pytest.mark.parametrize(("delta", "gamma"), [(0.01, 0.1), (0.3, 0.7)])
@pytest.mark.parametrize("form", ["stable", "outside"])
def test_the_computable_forms_equal_the_scalar_formula(form: str, delta: float, gamma: float) -> None:
    for base in BASES:
        for detail in DETAILS:
            expected = slow_skd(base, detail, form, delta, gamma)
            assert at(base, detail, form, delta=delta, gamma=gamma)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("form", "base_slope", "detail_slope"), [("stable", 47, 2060), ("outside", 69, 96_000)])
def test_the_computable_forms_are_finite_and_never_negative(
    form: str, base_slope: float, detail_slope: float, dtype: torch.dtype
) -> None:
    for base in BASES:
        for detail in DETAILS:
            value, by_base, by_detail = at(base, detail, form, dtype)
            assert value >= 0
            assert math.isfinite(value)
            assert -base_slope < by_base < 0  # falls as the base correlation rises
            assert 0 <= by_detail < detail_slope  # and does not rise as the detail correlation falls
            assert (value == 0) == (base == 1)


def test_the_slope_stops_at_the_floor_and_the_ceiling_of_the_detail_correlation() -> None:
    for detail in (-1.0, 0.0, 1 + 1e-7):
        assert at(0.5, detail)[2] == 0
    assert at(0.5, 0.01 + 1e-9)[2] > 0
    assert at(0.5, 1 - 1e-9)[2] == pytest.approx(-math.log(0.5) / 3 * 0.01 ** (-4 / 3), rel=1e-6)  # 107, the steepest


def test_a_negative_base_correlation_is_still_pulled_up() -> None:
    slopes = {base: at(base, 0.5)[1] for base in (-1.0, 0.0, 0.0999, 0.1, 0.1001, 0.2)}
    root = cube_root(0.01 - math.log(0.5))
    assert [slopes[base] for base in (-1.0, 0.0, 0.0999, 0.1)] == pytest.approx([-10 / root] * 4)
    assert slopes[0.1001] == pytest.approx(-1 / 0.1001 / root)
    assert slopes[0.2] == pytest.approx(-5 / root)


def test_stable_is_near_the_printed_formula_where_that_is_defined() -> None:
    """The paper prints no gamma here, which only keeps the denominator from 0. Up to 0.5, both agree within 0.5 %."""
    for base in (0.2, 0.5, 0.9):
        for detail in (0.011, 0.1, 0.3, 0.5):
            assert at(base, detail)[0] == pytest.approx(slow_skd(base, detail, "literal", 0, 0), rel=0.005)


def test_literal_does_what_is_printed_however_bad() -> None:
    assert at(0.9, 0.999, "literal")[0] == pytest.approx(6318, abs=1)  # beside the pole of the denominator
    assert at(0.9, 0.9999, "literal")[0] < -1  # negative beyond it
    assert at(0.5, 0.3, "literal")[0] == pytest.approx(slow_skd(0.5, 0.3, "literal", 0, 0.1))
    assert at(0.9, 1.0, "literal")[0] == pytest.approx(math.log(0.9) / 0.1)
    assert math.isnan(at(-0.1, 0.5, "literal")[0])
    assert math.isnan(at(0.5, -0.1, "literal")[0])


def test_unknown_form_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown form 'smooth'.*'stable', 'outside' or 'literal'"):
        at(0.5, 0.5, "smooth")


def features() -> tuple[torch.Tensor, ...]:
    """Base features that correlate at 0.58, detail features at 0.23; widths differ."""
    generator = torch.Generator().manual_seed(5)

    def pair(width: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        shared = torch.randn(3, width, generator=generator, dtype=torch.float64)
        one, other = (shared + noise * torch.randn(3, width, generator=generator).double() for _ in range(2))
        return one.requires_grad_(), other.requires_grad_()

    return *pair(8, 1.0), *pair(10, 1.5)


@pytest.mark.parametrize("form", ["stable", "outside", "literal"])
def test_on_features_it_is_the_function_of_their_correlations(form: str) -> None:
    inputs = features()
    base, detail = correlation(*inputs[:2]).item(), correlation(*inputs[2:]).item()
    assert 0.1 < detail < base - 0.1
    loss = specific_shared(*inputs, form=form, delta=0.02, gamma=0.3)
    assert loss.item() == pytest.approx(slow_skd(base, detail, form, 0.02, 0.3), rel=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in grad(loss, inputs))  # nothing is detached
    assert gradcheck(lambda *x: specific_shared(*x, form=form, delta=0.02, gamma=0.3), inputs)


def test_all_equal_rows_are_finite() -> None:
    rows = torch.full((4, 512), 3.3, requires_grad=True)
    loss = specific_shared(rows, rows, rows, rows)
    assert loss.isfinite()
    assert grad(loss, rows)[0].isfinite().all()
