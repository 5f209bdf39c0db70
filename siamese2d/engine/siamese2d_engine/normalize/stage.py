"""The stage ``normalize``: fit, apply and downsample a set of micrographs.

The normalized pixel is ``(x / alpha - mu_z) / sigma_z`` with z the component that holds most pixels: of the whole set
in a joint fit, of the micrograph in its own fit. One component for all pixels makes the map increasing and linear
over the whole image, so that it changes no contrast; in practice it gives the background mean 0 and standard
deviation 1 and leaves carbon and ice where they are. The fit is made at the pixel size of the output, because
downsampling narrows the noise.
"""

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from siamese2d_engine.devices import seed_from
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import read_json, write_json
from siamese2d_engine.io.images import read_image, write_mrc
from siamese2d_engine.io.micrographs import MicrographSet, write_micrographs
from siamese2d_engine.normalize.mixture import Mixture, fit, fit_gain, share
from siamese2d_engine.normalize.parallel import bounded_threads, parallel_map
from siamese2d_engine.normalize.pixels import (
    Histogram,
    PixelSample,
    histogram,
    repair_pixels,
    sample_positions,
    summary_histogram,
    take_sample,
)
from siamese2d_engine.normalize.resample import check_factor, cropped_size, downsample
from siamese2d_engine.progress import progress
from siamese2d_engine.runs import Run

METHODS = ("joint", "each", "affine")
# A joint fit of more micrographs would not change; evenly spaced ones are taken. The others get their gain from it.
JOINT_MICROGRAPHS = 2000
# A micrograph whose histogram diverges from the joint fit by more (nats per pixel) does not follow it: about 20 % in
# the width or 0.3 standard deviations in the mean. Usually its values have an offset beside the gain.
LARGEST_MISFIT = 0.04
# Memory for micrographs that were prepared for the joint fit and need not be read again to be scaled.
KEPT_BYTES = 2**28
# How often a joint fit is repeated with the micrographs that follow it.
REFITS = 8
SMALLEST_OUTPUT = 32


@dataclass(frozen=True)
class Settings:
    """What determines the result beside the micrographs.

    Attributes
    ----------
    method : str
        ``joint``: one mixture for all micrographs and a gain for each; ``each``: a mixture for each; ``affine``: mean
        and standard deviation of each.
    factor : float
        Downsampling, 1 or more.
    fit_pixels : int
        Pixels of a micrograph that take part in the fit.
    seed : int
        Of the choice of these pixels.
    shared : str or None
        ``normalization.json`` of an earlier joint run, whose mixture is taken instead of fitting one: micrographs that
        come later get the grey scale of the first ones.
    """

    method: str = "joint"
    factor: float = 1.0
    fit_pixels: int = 100_000
    seed: int = 0
    shared: str | None = None


@dataclass(frozen=True)
class _Scale:
    """How one micrograph is scaled: ``(x / alpha - mu) / sigma`` with the component's mu and sigma; and where from."""

    mixture: Mixture
    alpha: float
    rho: float
    fit: str
    message: str = ""

    def apply(self, image: np.ndarray) -> np.ndarray:
        factor = 1 / (self.alpha * self.mixture.scale)
        return image * np.float32(factor) - np.float32(self.mixture.location / self.mixture.scale)


@dataclass(frozen=True)
class _Prepared:
    """A micrograph as it is before scaling, with the pixels for its fit and its histogram."""

    image: np.ndarray
    sample: PixelSample
    positions: np.ndarray
    repaired: int
    before: dict


class _Shelf:
    """Prepared micrographs by name, as many as fit into `KEPT_BYTES`; each is taken once."""

    def __init__(self):
        self._prepared: dict[str, _Prepared] = {}
        self._room = KEPT_BYTES

    def put(self, name: str, prepared: _Prepared) -> None:
        size = prepared.image.nbytes + prepared.positions.nbytes + prepared.sample.values.nbytes
        if size <= self._room:
            self._room -= size
            self._prepared[name] = prepared

    def take(self, name: str) -> _Prepared | None:
        return self._prepared.pop(name, None)


def normalize_micrographs(run: Run, micrographs: MicrographSet, settings: Settings, threads: int = 1) -> None:
    """Normalize all micrographs into the run's folder.

    Writes ``micrographs/<stem>.mrc``, ``micrographs.star`` (without the micrographs that failed) and
    ``normalization.json``; keeps ``records/<stem>.json`` and, for the joint method, ``fit.json`` to resume from.

    Raises
    ------
    InputError
        If the settings contradict each other, or no micrograph can be normalized.
    """
    check_settings(settings)
    threads, shelf = bounded_threads(threads, micrographs.paths), _Shelf()
    shared = _shared_mixture(run, micrographs, settings, threads, shelf) if settings.method == "joint" else None
    work = partial(_record, run, settings=settings, shared=shared, shelf=shelf)
    jobs = list(zip(micrographs.names, micrographs.paths, micrographs.pixel_sizes))
    records = list(progress(parallel_map(lambda job: work(*job), jobs, threads), "normalize", total=len(jobs)))
    good = np.array([record["status"] == "finished" for record in records])
    _warn(run, records, settings.method)
    if not good.any():
        raise InputError(f"None of the {len(records)} micrographs could be normalized. First: {records[0]['message']}")
    kept = micrographs.subset(good)
    images = [run.path("micrographs", f"{name}.mrc") for name in kept.names]
    write_micrographs(run.path("micrographs.star"), kept, images, kept.pixel_sizes * settings.factor)
    write_json(run.path("normalization.json"), {
        "method": settings.method,
        "downsample": settings.factor,
        "shared": None if shared is None else _mixture_to_json(shared),
        "micrographs": records,
    })
    run.results.update(micrographs=int(good.sum()), failed=int((~good).sum()))


def check_settings(settings: Settings) -> None:
    """Raise InputError for a downsampling below 1, and for a mixture given to another method than the joint one."""
    check_factor(settings.factor)
    if settings.shared and settings.method != "joint":
        raise InputError(f"--shared is for --method joint; the method {settings.method} takes nothing from others.")


def _shared_mixture(run: Run, micrographs: MicrographSet, settings: Settings, threads: int, shelf: _Shelf) -> Mixture:
    """The given mixture, else the joint fit, made once and kept: a resumed run scales by the same numbers."""
    if settings.shared:
        return _given_mixture(settings.shared)
    path = run.path("fit.json")
    if path.exists():
        return _mixture_from_json(read_json(path))
    chosen = np.unique(np.linspace(0, len(micrographs) - 1, JOINT_MICROGRAPHS).astype(int))
    jobs = [(micrographs.names[i], micrographs.paths[i]) for i in chosen]
    found = progress(parallel_map(lambda job: _histogram(*job, settings, shelf), jobs, threads), "sample pixels",
                     len(jobs))
    usable = [pair for pair in found if pair is not None]
    if not usable:
        _prepare(*jobs[0], settings)
        raise InputError(f"None of the {len(micrographs)} micrographs could be read.")
    mixture = _joint_fit(usable)
    write_json(path, _mixture_to_json(mixture))
    return mixture


def _given_mixture(path: str) -> Mixture:
    try:
        return _mixture_from_json(read_json(path)["shared"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: there is no mixture to share in this file. Give normalization.json of a run with "
                         "--method joint.") from error


def _joint_fit(pairs: list[tuple[Histogram, float]]) -> Mixture:
    """Fit all histograms (given with their resolutions), then those that follow the fit, until these stay the same.

    Where most do not follow, the better half goes on, as in a least trimmed fit: one micrograph of another kind can
    spoil the first fit for all.
    """
    values, weights = (np.array([getattr(pair[0], name) for pair in pairs]) for name in ("values", "weights"))
    best, resolutions = np.array([pair[0].best for pair in pairs]), np.array([pair[1] for pair in pairs])
    members = np.ones(len(pairs), dtype=bool)
    for _ in range(REFITS):
        mixture, _ = fit(values[members], weights[members], resolutions[members])
        misfit = best - share(values, weights, mixture, fit_gain(values, weights, mixture))[1]
        half = np.median(misfit[members])
        chosen = misfit <= LARGEST_MISFIT if half <= LARGEST_MISFIT else members & (misfit <= half)
        if (chosen == members).all():
            break
        members = chosen
    return mixture


def _histogram(name: str, path: Path, settings: Settings, shelf: _Shelf) -> tuple[Histogram, float] | None:
    """Histogram and resolution of one micrograph; None when it can't be used, which is reported when it is scaled."""
    try:
        prepared = _prepare(name, path, settings)
    except InputError:
        return None
    shelf.put(name, prepared)
    sample = prepared.sample
    return histogram(sample), sample.resolution


def _record(run: Run, name: str, path: Path, pixel_size: float, settings: Settings, shared: Mixture | None,
            shelf: _Shelf) -> dict:
    """Normalize one micrograph, or find it done; its entry of ``normalization.json``."""
    kept, image_path = run.path("records", f"{name}.json"), run.path("micrographs", f"{name}.mrc")
    if kept.exists() and image_path.exists():
        return read_json(kept)
    try:
        record, image = _normalize(name, shelf.take(name) or _prepare(name, path, settings), settings, shared)
    except InputError as error:
        return {"name": name, "status": "failed", "message": str(error)}
    # The image is last: where it is there, the micrograph is done.
    write_json(kept, record)
    write_mrc(image_path, image, pixel_size * settings.factor)
    return record


def _normalize(name: str, prepared: _Prepared, settings: Settings, shared: Mixture | None) -> tuple[dict, np.ndarray]:
    scale = _scale(prepared.sample, settings.method, shared)
    image = scale.apply(prepared.image)
    notes = [scale.message]
    if prepared.sample.fill_share:
        values = ", ".join(f"{value:g}" for value in prepared.sample.fill_values)
        notes.append(f"{100 * prepared.sample.fill_share:.1f} % of the pixels are padding, dead or saturated (all of "
                     f"the value {values}) and were left out of the fit")
    if prepared.repaired:
        notes.append(f"{prepared.repaired} dead or hot pixels were replaced by the median of their neighbours")
    return {
        "name": name,
        "status": "finished",
        "message": "; ".join(note for note in notes if note),
        "fit": scale.fit,
        "alpha": scale.alpha,
        "mu": scale.mixture.mu.tolist(),
        "sigma": scale.mixture.sigma.tolist(),
        "rho": scale.rho,
        "component": scale.mixture.dominant,
        "replaced_pixels": prepared.repaired,
        "uninformative_share": prepared.sample.fill_share,
        "before": prepared.before,
        "after": summary_histogram(image.ravel()[prepared.positions]),
    }, image


def _prepare(name: str, path: Path, settings: Settings) -> _Prepared:
    """Read, repair and downsample one micrograph and sample it; raises InputError for one that can't be used."""
    generator = np.random.default_rng(seed_from(settings.seed, zlib.crc32(name.encode())))
    image = read_image(path)
    positions = sample_positions(image.size, settings.fit_pixels, generator)
    sample = _named_sample(path, image.ravel()[positions])
    before = summary_histogram(image.ravel()[positions])
    image, repaired = repair_pixels(image, sample)
    if settings.factor == 1:
        return _Prepared(image, sample, positions, repaired, before)
    _check_output_size(path, image.shape, settings.factor)
    small = downsample(image, settings.factor)
    positions = sample_positions(small.size, settings.fit_pixels, generator)
    if len(sample.fill_values):
        full = _corresponding(image, small.shape, positions, settings.factor)
        positions = positions[~np.isin(full, sample.fill_values)]
    small_sample = _named_sample(path, small.ravel()[positions])
    small_sample = PixelSample(small_sample.values, sample.fill_values, sample.fill_share, small_sample.resolution)
    return _Prepared(small, small_sample, positions, repaired, before)


def _corresponding(image: np.ndarray, shape: tuple[int, int], positions: np.ndarray, factor: float) -> np.ndarray:
    """Pixels of the full image nearest to some pixels of the downsampled one."""
    indices = np.stack(np.unravel_index(positions, shape))
    rows, columns = np.minimum((indices * factor).astype(int), np.array(image.shape)[:, None] - 1)
    return image[rows, columns]


def _named_sample(path: Path, values: np.ndarray) -> PixelSample:
    try:
        return take_sample(values)
    except InputError as error:
        raise InputError(f"{path}: {error}. There is nothing to normalize; leave this micrograph out.") from error


def _check_output_size(path: Path, shape: tuple[int, int], factor: float) -> None:
    smallest = min(cropped_size(size, factor)[1] for size in shape)
    if smallest < SMALLEST_OUTPUT:
        raise InputError(f"{path}: --downsample {factor:g} leaves {smallest} of {min(shape)} pixels. Use a smaller "
                         "factor.")


def _scale(sample: PixelSample, method: str, shared: Mixture | None) -> _Scale:
    pixels = histogram(sample)
    values, weights = pixels.values[None], pixels.weights[None]
    if method == "affine":
        return _affine(pixels)
    message = ""
    if shared is not None:
        alpha = fit_gain(values, weights, shared)
        rho, reached = share(values, weights, shared, alpha)
        misfit = pixels.best - reached[0]
        if misfit <= LARGEST_MISFIT:
            return _Scale(shared, float(alpha[0]), float(rho[0]), "shared")
        message = f"does not follow the joint fit (diverges by {misfit:.3f} nats per pixel) and was scaled by its own"
    own = fit(values, weights, sample.resolution)[0]
    return _Scale(own, 1.0, own.rho, "own", message)


def _affine(pixels: Histogram) -> _Scale:
    mean = np.average(pixels.values, weights=pixels.weights)
    deviation = np.sqrt(np.average((pixels.values - mean) ** 2, weights=pixels.weights))
    return _Scale(Mixture(np.full(2, mean), np.full(2, deviation), 0.0, float("-inf")), 1.0, 0.0, "affine")


def _warn(run: Run, records: list[dict], method: str) -> None:
    """One line for every failed micrograph; one for all that left the joint fit, and one for all with bad pixels."""
    for record in records:
        if record["status"] == "failed":
            run.warn(record["message"])
    finished = [record for record in records if record["status"] == "finished"]
    strangers = [record["name"] for record in finished if method == "joint" and record["fit"] == "own"]
    if strangers:
        run.warn(f"{len(strangers)} of {len(records)} micrographs do not follow the joint fit and were scaled by "
                 f"their own (first: {strangers[0]}). Where that is most of them, their values have offsets: use "
                 "--method each.")
    spoilt = [record["name"] for record in finished if record["replaced_pixels"] or record["uninformative_share"]]
    if spoilt:
        run.warn(f"{len(spoilt)} micrographs have dead, saturated or hot pixels (first: {spoilt[0]}); "
                 "normalization.json says which.")


def _mixture_to_json(mixture: Mixture) -> dict:
    return {"mu": mixture.mu.tolist(), "sigma": mixture.sigma.tolist(), "rho": mixture.rho,
            "log_likelihood": mixture.log_likelihood, "starts": list(mixture.finalists)}


def _mixture_from_json(content: dict) -> Mixture:
    return Mixture(np.array(content["mu"]), np.array(content["sigma"]), content["rho"], content["log_likelihood"],
                   tuple(content["starts"]))
