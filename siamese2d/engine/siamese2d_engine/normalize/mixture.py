"""Mixture of two Gaussians over the pixels of one or many micrographs, with a gain for each micrograph.

The model (Bepler et al. 2019, Nat. Methods 16, 1153, Methods): pixel ``x`` of micrograph ``k`` comes from one of two
Gaussians, ``x | z ~ N(alpha_k mu_z, (alpha_k sigma_z)^2)`` with ``z ~ Bernoulli(rho)``. Pixels are given as weighted
values, which may be the bins of a histogram: an iteration then costs the same for 10^4 and 10^8 pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

TRIAL_ROUNDS = 5
FINALIST_ROUNDS = 15
MAX_ROUNDS = 300
# Longest extrapolation, in EM steps.
LONGEST_JUMP = 1e3
FINALISTS = 3
# Micrographs on which the starts of a joint fit compete; the finalists see all of them.
TRIAL_MICROGRAPHS = 48
# EM stops when a round raises the mean log-likelihood per pixel (nats) by less.
TOLERANCE = 1e-8
# A second component must explain this much (nats per pixel), and the two must differ: in the means by the larger width,
# or in the widths by this factor. Two nearly equal components share one skewed population in an arbitrary way, and the
# scale taken from one of them would jump from micrograph to micrograph.
SMALLEST_GAIN = 1e-3
DIFFERENT_WIDTHS = 1.25
# Narrowest component, as a fraction of the standard deviation of all pixels: keeps components off single values.
NARROWEST = 0.02
# Starts: all pixels below a quantile to one component, all above to the other.
SPLITS = (0.05, 0.2, 0.5, 0.8, 0.95)


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians, in units of ``x / alpha``, the darker one first.

    Attributes
    ----------
    mu, sigma : ndarray
        Means and standard deviations, ``(2,)``, ``mu[0] <= mu[1]``; a component that vanished repeats the other one.
    rho : float
        Share of component 1; 0 when only one component is left.
    log_likelihood : float
        Mean over all fitted pixels of the log density of ``x``, nats per pixel.
    finalists : tuple of float
        The same for the most promising starts, best first, shortly before the best one was followed to the end.
    """

    mu: np.ndarray
    sigma: np.ndarray
    rho: float
    log_likelihood: float
    finalists: tuple[float, ...] = ()

    @property
    def dominant(self) -> int:
        """The component that holds most pixels."""
        return int(self.rho > 0.5)

    @property
    def location(self) -> float:
        """Mean of the dominant component."""
        return float(self.mu[self.dominant])

    @property
    def scale(self) -> float:
        """Standard deviation of the dominant component."""
        return float(self.sigma[self.dominant])


@dataclass(frozen=True)
class _Pixels:
    """Weighted values of ``k`` micrographs, and the centre ``(k,)`` that moments are taken about for accuracy.

    The powers 0, 1 and 2 of the distance from the centre, ``(k, b, 3)``, are kept because every iteration needs them.
    """

    values: np.ndarray
    weights: np.ndarray
    centre: np.ndarray
    powers: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: np.ndarray) -> "_Pixels":
        values, weights = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        centre = (values * weights).sum(1) / weights.sum(1)
        offset = values - centre[:, None]
        return cls(values, weights, centre, np.stack([np.ones_like(offset), offset, offset**2], axis=2))

    @property
    def total(self) -> float:
        return float(self.weights.sum())

    def spread(self) -> np.ndarray:
        """Standard deviation of every micrograph, ``(k,)``."""
        squares = self.weights * (self.values - self.centre[:, None]) ** 2
        return np.sqrt(squares.sum(1) / self.weights.sum(1))

    def subset(self, rows: np.ndarray) -> "_Pixels":
        return _Pixels(self.values[rows], self.weights[rows], self.centre[rows], self.powers[rows])


@dataclass(frozen=True)
class _State:
    """All parameters during EM, with the components in any order."""

    mu: np.ndarray
    sigma: np.ndarray
    rho: float
    alpha: np.ndarray


@dataclass(frozen=True)
class _Moments:
    """Number, mean and sum of squares about the mean of every component's pixels in every micrograph, ``(k, 2)``."""

    number: np.ndarray
    mean: np.ndarray
    squares: np.ndarray


def fit(values: np.ndarray, weights: np.ndarray, resolution: np.ndarray | float = 0.0) -> tuple[Mixture, np.ndarray]:
    """Fit one mixture to all micrographs jointly, from several starts; the best log-likelihood wins.

    Only the products ``alpha mu`` and ``alpha sigma`` are determined by the data; the geometric mean of `alpha` is set
    to 1. A second component vanishes when it explains less than `SMALLEST_GAIN`, or less than the Bayesian information
    criterion asks for, or when it is not distinct from the first (`DIFFERENT_WIDTHS`).

    Parameters
    ----------
    values : ndarray
        Pixel values, or centres of histogram bins, ``(k, b)`` for ``k`` micrographs.
    weights : ndarray
        Number of pixels at each value, ``(k, b)``; 0 where there is none. Every micrograph needs two different values.
    resolution : ndarray or float
        Spacing of the values that can occur (1 for integers, 0 for a continuum), ``(k,)``; no component becomes
        narrower.

    Returns
    -------
    mixture : Mixture
        The shared parameters.
    alpha : ndarray
        Gains, ``(k,)``.
    """
    pixels = _Pixels.of(values, weights)
    gains = list(_first_gains(pixels))
    floors = [_narrowest(pixels, alpha, resolution) for alpha in gains]
    singles = [(*_follow(pixels, _one_gaussian(pixels, alpha), floor), floor) for alpha, floor in zip(gains, floors)]
    finals = [(*_follow(pixels, state, floor, FINALIST_ROUNDS), floor)
              for state, floor in _finalists(pixels, gains, floors)]
    finals.sort(key=lambda final: final[1], reverse=True)
    state, reached, _ = max(singles, key=lambda final: final[1])
    needed = max(SMALLEST_GAIN, 1.5 * np.log(pixels.total) / pixels.total)
    if finals and finals[0][1] - reached > needed:
        pair, pair_reached = _follow(pixels, finals[0][0], finals[0][2])
        if _distinct(pair):
            state, reached = pair, pair_reached
    return _as_mixture(state, reached, tuple(final[1] for final in finals)), state.alpha


def fit_gain(values: np.ndarray, weights: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Gains ``(k,)`` of micrographs under a mixture that was fitted before, with its parameters kept.

    Parameters as for `fit`. Two starts, from the micrograph's mean and from its spread; for each micrograph the one
    with the better likelihood is taken.
    """
    pixels = _Pixels.of(values, weights)
    mean, spread = _mixture_moments(mixture)
    starts = [pixels.spread() / spread]
    if mean > 0 and (pixels.centre > 0).all():
        starts.append(pixels.centre / mean)
    candidates = np.array([_gains_from(pixels, mixture, alpha) for alpha in starts])
    reached = np.array([_row_log_likelihood(pixels, _with_gains(mixture, alpha)) for alpha in candidates])
    return candidates[reached.argmax(0), np.arange(len(pixels.values))]


def share(values: np.ndarray, weights: np.ndarray, mixture: Mixture,
          alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of every micrograph belongs to component 1, and how well the mixture describes it.

    Parameters
    ----------
    values, weights : ndarray
        As for `fit`, ``(k, b)``.
    mixture : Mixture
        Of the set.
    alpha : ndarray
        Gains, ``(k,)``.

    Returns
    -------
    tuple of ndarray
        Mean probability of component 1, ``(k,)``; mean log density of the pixels, nats per pixel, ``(k,)``.
    """
    pixels, state = _Pixels.of(values, weights), _with_gains(mixture, alpha)
    bright = _expect(pixels, state)[0]
    return (pixels.weights * bright).sum(1) / pixels.weights.sum(1), _row_log_likelihood(pixels, state)


def _distinct(state: _State) -> bool:
    apart = abs(state.mu[1] - state.mu[0]) > state.sigma.max()
    return bool(apart or state.sigma.max() > DIFFERENT_WIDTHS * state.sigma.min())


def _follow(pixels: _Pixels, state: _State, floor: float, rounds: int = MAX_ROUNDS) -> tuple[_State, float]:
    """EM with squared extrapolation until it gains no more; the state and its log-likelihood.

    Each round makes two EM steps and a jump along them (SQUAREM: Varadhan & Roland 2008, Scand. J. Stat. 35, 335). A
    jump that is not better than the second step is dropped, so that the likelihood never falls.
    """
    bright, reached = _expect(pixels, state)
    for _ in range(rounds):
        first = _maximize(_moments(pixels, bright), state, floor)
        second = _maximize(_moments(pixels, _expect(pixels, first)[0]), first, floor)
        bright, after = _expect(pixels, second)
        if after - reached < TOLERANCE:
            return second, after
        jumped = _jump(state, first, second, floor)
        jumped_bright, jumped_to = _expect(pixels, jumped)
        if jumped_to > after:
            second, bright, after = jumped, jumped_bright, jumped_to
        state, reached = second, after
    return state, reached


def _jump(start: _State, first: _State, second: _State, floor: float) -> _State:
    """Squared extrapolation of two EM steps, in coordinates without bounds (``rho`` is clipped)."""
    vectors = [np.concatenate([s.mu, np.log(s.sigma), [s.rho], np.log(s.alpha)]) for s in (start, first, second)]
    step, bend = vectors[1] - vectors[0], vectors[2] - 2 * vectors[1] + vectors[0]
    length = max(np.linalg.norm(step) / max(np.linalg.norm(bend), np.finfo(float).tiny), 1.0)
    target = vectors[0] + 2 * length * step + length**2 * bend
    if length > LONGEST_JUMP or not np.isfinite(target).all():
        return second
    mu, log_sigma, rho, log_alpha = np.split(target, [2, 4, 5])
    return _State(mu, np.maximum(np.exp(log_sigma), floor), float(np.clip(rho[0], 0, 1)), np.exp(log_alpha))


def _expect(pixels: _Pixels, state: _State) -> tuple[np.ndarray, float]:
    """E-step: probability of component 1 for every value, ``(k, b)``; mean log-likelihood."""
    dark, bright = _log_joint(pixels, state)
    density = np.logaddexp(dark, bright)
    per_micrograph = (pixels.weights * density).sum(1) - pixels.weights.sum(1) * np.log(state.alpha)
    return np.exp(bright - density), float(per_micrograph.sum() / pixels.total)


def _row_log_likelihood(pixels: _Pixels, state: _State) -> np.ndarray:
    """Mean log-likelihood of each micrograph, ``(k,)``."""
    density = np.logaddexp(*_log_joint(pixels, state))
    return (pixels.weights * density).sum(1) / pixels.weights.sum(1) - np.log(state.alpha)


def _log_joint(pixels: _Pixels, state: _State) -> Iterator[np.ndarray]:
    """``log p(x / alpha, z)`` for z = 0, 1; minus infinity for a component that has vanished."""
    scaled = pixels.values / state.alpha[:, None]
    with np.errstate(divide="ignore"):
        log_share = np.log([1 - state.rho, state.rho])
    for z in (0, 1):
        constant = log_share[z] - np.log(state.sigma[z]) - 0.5 * np.log(2 * np.pi)
        yield constant - 0.5 * ((scaled - state.mu[z]) / state.sigma[z]) ** 2


def _moments(pixels: _Pixels, bright: np.ndarray) -> _Moments:
    lit = pixels.weights * bright
    members = np.stack([pixels.weights - lit, lit], axis=1)
    number, first, second = np.moveaxis(members @ pixels.powers, 2, 0)
    mean = first / np.maximum(number, np.finfo(float).tiny)
    return _Moments(number, pixels.centre[:, None] + mean, np.maximum(second - number * mean**2, 0))


def _maximize(moments: _Moments, state: _State, floor: float) -> _State:
    """M-step in two conditional steps: ``mu, sigma, rho`` given ``alpha``, then ``alpha`` given those.

    With responsibilities ``r_iz`` the expected log-likelihood of micrograph k is ``Q = -n log alpha - sum_iz r_iz
    [log sigma_z + (x_i / alpha - mu_z)^2 / (2 sigma_z^2)]``. For fixed ``alpha`` it is that of an ordinary mixture of
    ``x / alpha``. For fixed ``mu, sigma`` and with ``u = 1 / alpha``, ``dQ/du = n / u - u a + b`` where ``a = sum r
    x^2 / sigma^2`` and ``b = sum r x mu / sigma^2``; its positive root is ``u = (b + sqrt(b^2 + 4 a n)) / (2 a)``.
    Each step raises Q, so the likelihood never falls (ECM: Meng & Rubin 1993, Biometrika 80, 267). Multiplying all
    ``alpha`` and dividing ``mu, sigma`` by one number changes nothing; it is chosen to make the geometric mean of
    ``alpha`` 1. One micrograph alone keeps ``alpha = 1``.
    """
    mu, sigma, rho = _maximize_shape(moments, state, floor)
    if len(state.alpha) == 1:
        return _State(mu, sigma, rho, state.alpha)
    alpha = _maximize_gain(moments, mu, sigma)
    centre = np.exp(np.log(alpha).mean())
    return _State(mu * centre, sigma * centre, rho, alpha / centre)


def _maximize_shape(moments: _Moments, state: _State, floor: float) -> tuple[np.ndarray, np.ndarray, float]:
    number = moments.number.sum(0)
    alive = number > 1e-12 * number.sum()
    divisor = np.where(alive, number, 1.0)
    alpha = state.alpha[:, None]
    mu = np.where(alive, (moments.number * moments.mean / alpha).sum(0) / divisor, state.mu)
    squares = (moments.squares + moments.number * (moments.mean - alpha * mu) ** 2) / alpha**2
    sigma = np.where(alive, np.maximum(np.sqrt(squares.sum(0) / divisor), floor), state.sigma)
    return mu, sigma, float(number[1] / number.sum())


def _maximize_gain(moments: _Moments, mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    n = moments.number.sum(1)
    a = ((moments.squares + moments.number * moments.mean**2) / sigma**2).sum(1)
    b = (moments.number * moments.mean * mu / sigma**2).sum(1)
    root = np.sqrt(b**2 + 4 * a * n)
    # 1 / u in the form without cancellation for either sign of b; the unused branch may divide by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b >= 0, 2 * a / (b + root), (root - b) / (2 * n))


def _gains_from(pixels: _Pixels, mixture: Mixture, alpha: np.ndarray) -> np.ndarray:
    """EM over the gains alone, for all micrographs at once."""
    before = np.full(len(alpha), -np.inf)
    for _ in range(MAX_ROUNDS):
        state = _with_gains(mixture, alpha)
        reached = _row_log_likelihood(pixels, state)
        if (reached - before < TOLERANCE).all():
            break
        before = reached
        alpha = _maximize_gain(_moments(pixels, _expect(pixels, state)[0]), mixture.mu, mixture.sigma)
    return alpha


def _first_gains(pixels: _Pixels) -> Iterator[np.ndarray]:
    """Where to start the gains: from the spreads of the micrographs, and from their means where all are positive."""
    if len(pixels.values) == 1:
        yield np.ones(1)
        return
    for size in [pixels.spread()] + ([pixels.centre] if (pixels.centre > 0).all() else []):
        yield size / np.exp(np.log(size).mean())


def _narrowest(pixels: _Pixels, alpha: np.ndarray, resolution: np.ndarray | float) -> float:
    spread = _one_gaussian(pixels, alpha).sigma[0]
    return max(NARROWEST * spread, float(np.median(np.broadcast_to(resolution, len(alpha)) / alpha)))


def _finalists(pixels: _Pixels, gains: list[np.ndarray], floors: list[float]) -> list[tuple[_State, float]]:
    """The best states after a short trial of all starts, on some of the micrographs; with their floors."""
    rows = np.unique(np.linspace(0, len(pixels.values) - 1, TRIAL_MICROGRAPHS).astype(int))
    some = pixels.subset(rows)
    trials = []
    for alpha, floor in zip(gains, floors):
        for start in _starts(some, alpha[rows], floor):
            state, reached = _follow(some, start, floor, TRIAL_ROUNDS)
            # Among the trial micrographs alpha drifted by a common factor, which the shape carries.
            drift = np.exp(np.log(state.alpha / alpha[rows]).mean())
            trials.append((reached, replace(state, mu=state.mu * drift, sigma=state.sigma * drift, alpha=alpha), floor))
    trials.sort(key=lambda trial: trial[0], reverse=True)
    return [trial[1:] for trial in trials[:FINALISTS]]


def _starts(pixels: _Pixels, alpha: np.ndarray, floor: float) -> Iterator[_State]:
    """Splits of all pixels at some quantiles, and a narrow core with wide tails."""
    scaled = (pixels.values / alpha[:, None]).ravel()
    order = np.argsort(scaled)
    scaled, weights = scaled[order], pixels.weights.ravel()[order]
    below = np.cumsum(weights) / weights.sum()
    for split in SPLITS:
        dark = below <= split
        sides = [(scaled[side], weights[side]) for side in (dark, ~dark)]
        if min(w.sum() for _, w in sides) > 0:
            mu = np.array([np.average(x, weights=w) for x, w in sides])
            variance = np.array([np.average((x - m) ** 2, weights=w) for (x, w), m in zip(sides, mu)])
            yield _State(mu, np.maximum(np.sqrt(variance), floor), float(sides[1][1].sum() / weights.sum()), alpha)
    one = _one_gaussian(pixels, alpha)
    yield replace(one, sigma=np.maximum(one.sigma * [0.6, 1.8], floor), rho=0.3)


def _one_gaussian(pixels: _Pixels, alpha: np.ndarray) -> _State:
    scaled = pixels.values / alpha[:, None]
    mean = np.average(scaled, weights=pixels.weights)
    deviation = np.sqrt(np.average((scaled - mean) ** 2, weights=pixels.weights))
    return _State(np.full(2, mean), np.full(2, deviation), 0.0, alpha)


def _with_gains(mixture: Mixture, alpha: np.ndarray) -> _State:
    return _State(np.asarray(mixture.mu, float), np.asarray(mixture.sigma, float), mixture.rho, alpha)


def _mixture_moments(mixture: Mixture) -> tuple[float, float]:
    shares = np.array([1 - mixture.rho, mixture.rho])
    mean = float(shares @ mixture.mu)
    return mean, float(np.sqrt(shares @ (np.square(mixture.sigma) + np.square(mixture.mu - mean))))


def _as_mixture(state: _State, reached: float, finalists: tuple[float, ...]) -> Mixture:
    if state.rho in (0.0, 1.0):
        left = int(state.rho)
        return Mixture(state.mu[[left, left]], state.sigma[[left, left]], 0.0, reached, finalists)
    order = np.argsort(state.mu, kind="stable")
    rho = state.rho if order[1] == 1 else 1 - state.rho
    return Mixture(state.mu[order], state.sigma[order], float(rho), reached, finalists)
