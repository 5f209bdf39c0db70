"""Every objective against its formula, written out in plain float64 arithmetic."""

import math

import pytest
import torch

from siamese2d_engine.picking import objectives

POSITIVE = [0.3, -1.2, 2.5]
UNLABELED = [-2.0, 0.7, -0.4, -3.1, 1.9]
PRIOR = 0.3


def _tensor(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def _mean(values):
    return sum(values) / len(values)


def _risks():
    """E_P[l(f, 1)], E_P[l(f, 0)], E_U[l(f, 0)] of the example."""
    return (_mean([-math.log(_sigmoid(x)) for x in POSITIVE]), _mean([-math.log(1 - _sigmoid(x)) for x in POSITIVE]),
            _mean([-math.log(1 - _sigmoid(x)) for x in UNLABELED]))


def _value(name, *weight):
    return objectives.OBJECTIVES[name](_tensor(POSITIVE), _tensor(UNLABELED), PRIOR, *weight).item()


def test_pn_is_the_weighted_cross_entropy():
    positive, _, unlabeled = _risks()
    assert _value("pn") == pytest.approx(PRIOR * positive + (1 - PRIOR) * unlabeled, rel=1e-12)


def test_pu_is_the_unbiased_risk():
    positive, positive_as_background, unlabeled = _risks()
    assert _value("pu") == pytest.approx(PRIOR * positive + unlabeled - PRIOR * positive_as_background, rel=1e-12)


def test_nnpu_equals_pu_while_the_bracket_is_positive():
    assert _value("nnpu") == pytest.approx(_value("pu"), rel=1e-12)


def test_nnpu_is_bounded_and_descends_on_minus_the_bracket_where_that_is_negative():
    low = [-9.0, -8.0, -7.5]
    unlabeled = _tensor(low)
    positive = _tensor([6.0, 5.0])
    risk = objectives.nnpu(positive, unlabeled, 0.5)
    assert risk.item() == pytest.approx(0.5 * _mean([-math.log(_sigmoid(x)) for x in (6.0, 5.0)]), rel=1e-12)
    risk.backward()
    # d(-B)/du = - mean sigmoid(u), d(-B)/dp = + pi mean sigmoid(p)
    assert unlabeled.grad.tolist() == pytest.approx([-_sigmoid(x) / 3 for x in low], rel=1e-9)
    assert positive.grad.tolist() == pytest.approx([0.5 * _sigmoid(x) / 2 for x in (6.0, 5.0)], rel=1e-9)


def test_ge_kl_adds_the_divergence_of_the_mean_probability():
    share = _mean([_sigmoid(x) for x in UNLABELED])
    divergence = PRIOR * math.log(PRIOR / share) + (1 - PRIOR) * math.log((1 - PRIOR) / (1 - share))
    assert _value("ge-kl", 10.0) == pytest.approx(_risks()[0] + 10 * divergence, rel=1e-9)


def _binomial_penalty(logits):
    g = [_sigmoid(x) for x in logits]
    mean, variance, n = sum(g), sum(p * (1 - p) for p in g), len(g)
    raw = [math.exp(-(k - mean) ** 2 / (2 * variance)) for k in range(n + 1)]
    q = [value / sum(raw) for value in raw]
    binomial = [math.comb(n, k) * PRIOR ** k * (1 - PRIOR) ** (n - k) for k in range(n + 1)]
    return -sum(a * math.log(b) for a, b in zip(q, binomial))


def test_ge_binomial_adds_the_cross_entropy_of_the_counts():
    assert _value("ge-binomial", 0.7) == pytest.approx(_risks()[0] + 0.7 * _binomial_penalty(UNLABELED), rel=1e-9)


def test_ge_binomial_of_rows_is_the_mean_of_their_penalties():
    rows = [UNLABELED, [0.1, -0.2, -1.0, -2.0, -2.5]]
    value = objectives.ge_binomial_penalty(torch.tensor(rows, dtype=torch.float64), PRIOR).item()
    assert value == pytest.approx(_mean([_binomial_penalty(row) for row in rows]), rel=1e-9)


def test_ge_binomial_penalty_is_smallest_near_the_prior():
    levels = torch.linspace(-6, 1, 71, dtype=torch.float64)
    penalties = [objectives.ge_binomial_penalty(level.expand(400), 0.05).item() for level in levels]
    assert torch.sigmoid(levels[int(torch.tensor(penalties).argmin())]).item() == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize("penalty", [objectives.ge_binomial_penalty, objectives.ge_kl_penalty])
def test_share_gives_the_value_and_the_batch_the_gradient(penalty):
    own = _mean([_sigmoid(x) for x in UNLABELED])
    plain, same, other = _tensor(UNLABELED), _tensor(UNLABELED), _tensor(UNLABELED)
    values = [penalty(plain, PRIOR), penalty(same, PRIOR, own), penalty(other, PRIOR, 0.9 * own)]
    for value in values:
        value.backward()
    assert values[1].item() == pytest.approx(values[0].item(), rel=1e-9) and values[2].item() != values[0].item()
    assert same.grad.tolist() == pytest.approx(plain.grad.tolist(), rel=1e-9)


def test_log_binomial_sums_to_one_for_many_pixels():
    logs = objectives.log_binomial(4096, 0.0066, like=torch.zeros(1, dtype=torch.float64))
    assert logs.exp().sum().item() == pytest.approx(1, rel=1e-9)
    assert logs.argmax().item() == 27


@pytest.mark.parametrize("name", list(objectives.OBJECTIVES))
def test_no_objective_is_nan_without_positives_or_when_all_is_certain(name):
    for positive, unlabeled in (([], UNLABELED), (POSITIVE, [-60.0] * 5), (POSITIVE, [60.0] * 5)):
        p, u = _tensor(positive), _tensor(unlabeled)
        loss = objectives.OBJECTIVES[name](p, u, PRIOR)
        loss.backward()
        assert math.isfinite(loss.item()) and torch.isfinite(u.grad).all()
