"""The two-Gaussian mixture against simulated truth and an EM written out pixel by pixel in float64."""

import math

import numpy as np
import pytest

from siamese2d_engine.normalize import mixture as module
from siamese2d_engine.normalize.mixture import fit, fit_gain, share


def simulate(mu, sigma, rho, alpha, pixels, seed=0):
    """Pixels ``(k, n)`` of the model."""
    generator = np.random.default_rng(seed)
    z = (generator.random((len(alpha), pixels)) < rho).astype(int)
    x = np.asarray(mu)[z] + np.asarray(sigma)[z] * generator.normal(size=z.shape)
    return np.asarray(alpha)[:, None] * x


def gains(number, seed=1):
    values = np.exp(0.3 * np.random.default_rng(seed).normal(size=number))
    return values / np.exp(np.log(values).mean())


def binned(x, bins=512):
    rows = [np.histogram(row, bins) for row in x]
    return np.array([(e[1:] + e[:-1]) / 2 for _, e in rows]), np.array([c for c, _ in rows], dtype=float)


def by_hand(x, mu, sigma, rho, alpha):
    """One EM iteration for one pixel after the other: (mu, sigma, rho, alpha, log-likelihood before)."""
    number, first, second, total = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], 0.0
    responsibility = []
    for row, a in zip(x, alpha):
        for value in row:
            joint = [(1 - rho, rho)[z] / (sigma[z] * a * math.sqrt(2 * math.pi))
                     * math.exp(-0.5 * ((value / a - mu[z]) / sigma[z]) ** 2) for z in (0, 1)]
            total += math.log(sum(joint))
            responsibility.append([j / sum(joint) for j in joint])
            for z in (0, 1):
                number[z] += responsibility[-1][z]
                first[z] += responsibility[-1][z] * value / a
                second[z] += responsibility[-1][z] * (value / a) ** 2
    new_mu = [first[z] / number[z] for z in (0, 1)]
    new_sigma = [math.sqrt(second[z] / number[z] - new_mu[z] ** 2) for z in (0, 1)]
    new_alpha, place = [], 0
    for row, old in zip(x, alpha):
        a = b = 0.0
        for value in row:
            for z in (0, 1):
                a += responsibility[place][z] * value**2 / new_sigma[z] ** 2
                b += responsibility[place][z] * value * new_mu[z] / new_sigma[z] ** 2
            place += 1
        # The gain as printed: s = 2 a / (b + sqrt(b^2 + 4 a n)).
        new_alpha.append(2 * a / (b + math.sqrt(b * b + 4 * a * len(row))) if len(alpha) > 1 else old)
    scale = math.exp(sum(map(math.log, new_alpha)) / len(new_alpha))
    return ([m * scale for m in new_mu], [s * scale for s in new_sigma], number[1] / sum(number),
            [a / scale for a in new_alpha], total / x.size)


@pytest.mark.parametrize("mu, sigma, rho", [
    ((5.0, 8.0), (1.0, 1.5), 0.3),
    ((-6.0, 4.0), (1.0, 1.5), 0.8),
    ((10.0, 18.0), (1.0, 2.0), 0.1),
    ((5.0, 5.5), (1.0, 3.0), 0.1),
])
def test_joint_fit_recovers_the_truth_within_one_percent(mu, sigma, rho):
    alpha = gains(12)
    found, found_alpha = fit(*binned(simulate(mu, sigma, rho, alpha, 100_000)))
    np.testing.assert_allclose(found.mu, mu, rtol=0.01)
    np.testing.assert_allclose(found.sigma, sigma, rtol=0.01)
    assert found.rho == pytest.approx(rho, rel=0.01)
    np.testing.assert_allclose(found_alpha, alpha, rtol=0.01)
    assert found.dominant == int(rho > 0.5)
    assert found.finalists[0] == pytest.approx(found.log_likelihood, abs=1e-4)


def test_fit_of_one_micrograph_recovers_the_truth_within_one_percent():
    found, alpha = fit(*binned(simulate((100.0, 130.0), (8.0, 5.0), 0.7, [1.0], 400_000)))
    np.testing.assert_allclose([*found.mu, *found.sigma, found.rho], [100, 130, 8, 5, 0.7], rtol=0.01)
    assert alpha == [1.0]


@pytest.mark.parametrize("number", [1, 3])
def test_iteration_equals_the_one_written_by_hand(number):
    x = simulate((2.0, 5.0), (1.0, 0.7), 0.4, gains(number), 60)
    pixels = module._Pixels.of(x, np.ones_like(x))
    state = module._State(np.array([1.0, 6.0]), np.array([2.0, 1.5]), 0.5, np.full(number, 1.0))
    hand = ([1.0, 6.0], [2.0, 1.5], 0.5, [1.0] * number)
    for _ in range(5):
        bright, reached = module._expect(pixels, state)
        *hand, hand_reached = by_hand(x, *hand)
        state = module._maximize(module._moments(pixels, bright), state, floor=0.0)
        assert reached == pytest.approx(hand_reached, rel=1e-12)
        for mine, theirs in zip((state.mu, state.sigma, state.rho, state.alpha), hand):
            np.testing.assert_allclose(mine, theirs, rtol=1e-10)


def test_fit_is_a_fixed_point_of_the_iteration_written_by_hand():
    x = simulate((2.0, 6.0), (1.0, 0.7), 0.4, gains(3), 1500)
    found, alpha = fit(x, np.ones_like(x))
    *again, reached = by_hand(x, found.mu, found.sigma, found.rho, alpha)
    assert found.log_likelihood == pytest.approx(reached, rel=1e-9)
    for mine, theirs in zip((found.mu, found.sigma, found.rho, alpha), again):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4)


def test_gain_step_finds_the_maximum_for_either_sign_of_the_mean():
    for mean in (4.0, -4.0):
        x = simulate((mean, 3 * mean), (1.0, 2.0), 0.3, [1.0, 2.5], 500)
        pixels = module._Pixels.of(x, np.ones_like(x))
        state = module._State(np.array([mean, 3 * mean]), np.array([1.0, 2.0]), 0.3, np.ones(2))
        bright = module._expect(pixels, state)[0]
        best = module._maximize_gain(module._moments(pixels, bright), state.mu, state.sigma)

        def expected(alpha, row):
            r = np.stack([1 - bright[row], bright[row]])
            scaled = x[row] / alpha
            terms = [(r[z] * ((scaled - state.mu[z]) / state.sigma[z]) ** 2).sum() for z in (0, 1)]
            return -x.shape[1] * np.log(alpha) - 0.5 * sum(terms)

        for row in (0, 1):
            assert best[row] > 0
            assert expected(best[row], row) > max(expected(best[row] * f, row) for f in (0.999, 1.001))


def test_log_likelihood_never_falls():
    values, weights = binned(simulate((3.0, 4.5), (1.0, 1.3), 0.35, gains(5), 20_000))
    pixels = module._Pixels.of(values, weights)
    for start in module._starts(pixels, np.ones(5), 0.0):
        state, history = start, []
        for _ in range(40):
            bright, reached = module._expect(pixels, state)
            history.append(reached)
            state = module._maximize(module._moments(pixels, bright), state, floor=0.0)
        assert np.diff(history).min() > -1e-12
        extrapolated = [module._follow(pixels, start, 0.0, rounds)[1] for rounds in range(8)]
        assert np.diff(extrapolated).min() > -1e-12
        assert module._follow(pixels, start, 0.0, 20)[1] > history[-1] - 1e-6


def test_second_component_vanishes_where_there_is_one_population():
    found, alpha = fit(*binned(simulate((7.0, 7.0), (1.2, 1.2), 0.5, gains(6), 50_000)))
    assert found.rho == 0.0
    np.testing.assert_allclose(found.mu, 7.0, rtol=0.01)
    np.testing.assert_allclose(found.sigma, 1.2, rtol=0.01)
    np.testing.assert_allclose(alpha, gains(6), rtol=0.01)


def test_gain_and_share_of_a_micrograph_outside_the_fit():
    truth = dict(mu=(5.0, 8.0), sigma=(1.0, 1.5))
    found, _ = fit(*binned(simulate(rho=0.3, alpha=gains(8), pixels=50_000, **truth)))
    later = binned(simulate(rho=0.3, alpha=[0.4, 3.0], pixels=50_000, seed=9, **truth))
    alpha = fit_gain(*later, found)
    np.testing.assert_allclose(alpha / alpha[0], [1.0, 7.5], rtol=0.01)
    rho, reached = share(*later, found, alpha)
    np.testing.assert_allclose(rho, found.rho, rtol=0.02)
    np.testing.assert_allclose(reached + np.log(alpha), found.log_likelihood, atol=0.01)


@pytest.mark.parametrize("values", [
    [0.0, 1.0],
    [0.0, 0.0, 0.0, 1e6],
    [1e30, 2e30, 3e30],
    [-1e-20, 1e-20, 3e-20],
    list(range(5)) + [255.0] * 200,
])
def test_fit_is_finite_for_extreme_values(values):
    values = np.array([values])
    found, alpha = fit(values, np.ones_like(values))
    assert np.isfinite([*found.mu, *found.sigma, found.rho, found.log_likelihood, *alpha]).all()
    assert (found.sigma > 0).all()


def test_components_keep_off_single_levels():
    levels = np.round(simulate((40.0, 40.0), (3.0, 3.0), 0.5, [1.0], 20_000))
    found, _ = fit(levels, np.ones_like(levels), resolution=1.0)
    assert found.sigma.min() >= 1.0
    assert found.scale == pytest.approx(3.0, rel=0.05)
