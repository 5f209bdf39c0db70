"""What normalization did: histograms with the fitted mixture, gains, and micrographs before and after."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .curves import count_axis, note
from .style import BARS, BLUE, GREEN, INK, ORANGE, RED, prepare, say, show_image, shrink, style, wrap

POINTS = 400


def plot_normalization(record: dict, before: np.ndarray | str, after: np.ndarray | str, downsampled: bool = False,
                       figure: Figure | None = None) -> Figure:
    """One micrograph before and after normalization, with its histograms and the fitted Gaussians below.

    Parameters
    ----------
    record : dict
        The micrograph's entry in ``normalization.json``: ``name``, ``status``, ``message``, ``alpha``, ``mu``,
        ``sigma``, ``rho``, ``component`` (the one that sets the scale), ``before`` and ``after``.
    before, after : ndarray, `(h, w)`, or str
        The two images, or why one can't be shown.
    downsampled : bool
        Whether the result has fewer pixels. The Gaussians belong to its pixels, whose noise is narrower, so they are
        then not drawn over the histogram of the file.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Four axes: the images above, the histograms below.
    """
    with style():
        figure = prepare(figure, 11.0, 8.4)
        grid = figure.subplots(2, 2, height_ratios=(1.5, 1))
        figure.suptitle(_heading(record), x=0.01, ha="left", fontsize=12, fontweight="bold")
        for axes, image, name in zip(grid[0], (before, after), ("before", "after")):
            axes.set_title(name.capitalize())
            if isinstance(image, str):
                say(axes, image)
            else:
                show_image(axes, shrink(image)[0])
        components = components_of(record)
        draw_histogram(grid[1, 0], record.get("before"), [] if downsampled else components, "pixel value of the file")
        draw_histogram(grid[1, 1], record.get("after"), normalized_components(components, record.get("component")),
                       "normalized pixel value")
        if downsampled and components:
            note(grid[1, 0], "fitted after downsampling, see on the right")
    return figure


def plot_gains(records: list[dict], figure: Figure | None = None) -> Figure:
    """Gain of every micrograph in the order of the set, or its scale without a joint fit; failed ones are marked.

    Parameters
    ----------
    records : list of dict
        Entries of ``normalization.json``: ``status``, ``fit``, ``alpha``, ``sigma``, ``component`` and ``rho``.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Two axes: the gain or scale above, the share of the brighter component below.
    """
    numbers = np.arange(1, len(records) + 1)
    failed = [number for number, record in zip(numbers, records) if record.get("status") == "failed"]
    with style():
        figure = prepare(figure, 8.4, 5.6)
        top, bottom = figure.subplots(2, 1, sharex=True)
        if any(record.get("fit") == "shared" for record in records):
            _draw_gains(top, numbers, records)
        else:
            _draw_widths(top, numbers, records)
        bottom.set_title("Share of the pixels in the brighter Gaussian")
        bottom.set_ylabel("share")
        _dots(bottom, numbers, [record.get("rho") for record in records], GREEN)
        bottom.set_ylim(-0.03, 1.03)
        count_axis(bottom, "micrograph")
        for axes in (top, bottom):
            for number in failed:
                axes.axvline(number, color=RED, linestyle=":", linewidth=1.2)
        top.margins(y=0.15)
        note(top, f"{len(records) - len(failed):,} micrographs"
             + (f", {len(failed):,} failed (dotted)" if failed else ""))
    return figure


def _draw_gains(axes: Axes, numbers: np.ndarray, records: list[dict]) -> None:
    axes.set_title("Gain of each micrograph")
    axes.set_ylabel("gain")
    shared = [record.get("fit") == "shared" for record in records]
    _dots(axes, numbers, [record["alpha"] if joint else None for record, joint in zip(records, shared)], BLUE)
    strangers = [number for number, record in zip(numbers, records) if record.get("fit") == "own"]
    for k, number in enumerate(strangers):
        axes.axvline(number, color=ORANGE, linestyle="--", linewidth=1.4, label=None if k else "scaled by its own fit")
    if strangers:
        axes.legend()


def _draw_widths(axes: Axes, numbers: np.ndarray, records: list[dict]) -> None:
    axes.set_title("Standard deviation that each micrograph was divided by")
    axes.set_ylabel("pixel value")
    widths = [None if record.get("sigma") is None else record["alpha"] * record["sigma"][record.get("component", 0)]
              for record in records]
    _dots(axes, numbers, widths, BLUE)


def _dots(axes: Axes, numbers: np.ndarray, values: list, color: str) -> None:
    axes.plot(numbers, np.array([np.nan if value is None else value for value in values], dtype=float),
              linestyle="none", marker="o", markersize=5, color=color, alpha=0.8)


def components_of(record: dict) -> list[tuple[float, float, float]]:
    """Weight, mean and standard deviation (of the file's pixels) of the Gaussians that were fitted; empty if none."""
    alpha, mu, sigma = record.get("alpha"), record.get("mu"), record.get("sigma")
    if alpha is None or mu is None or sigma is None:
        return []
    mu, sigma = np.atleast_1d(mu), np.atleast_1d(sigma)
    rho = record.get("rho")
    weights = [1.0] if len(mu) == 1 or rho is None else [1 - rho, rho]
    return [(weight, alpha * m, alpha * s) for weight, m, s in zip(weights, mu, sigma) if weight > 0]


def normalized_components(components: list[tuple[float, float, float]],
                          scale_by: int | None = None) -> list[tuple[float, float, float]]:
    """The same Gaussians in units of one of them, whose mean becomes 0 and whose standard deviation 1.

    Parameters
    ----------
    components : list of (weight, mean, standard deviation)
    scale_by : int, optional
        Position of that one; the heaviest when not given or when that one vanished.
    """
    if not components:
        return []
    known = scale_by is not None and scale_by < len(components)
    _, centre, width = components[scale_by] if known else max(components)
    return [(weight, (mean - centre) / width, deviation / width) for weight, mean, deviation in components]


def draw_histogram(axes: Axes, histogram: dict | None, components, label: str) -> None:
    """A histogram as a density, the Gaussians over it, and their sum.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    histogram : dict or None
        ``edges`` (`n + 1`) and ``counts`` (`n`).
    components : list of (weight, mean, standard deviation)
        In the units of the edges.
    label : str
        Of the x axis.
    """
    counts = np.asarray((histogram or {}).get("counts", []), dtype=float)
    if not counts.sum():
        say(axes, "No histogram.")
        return
    edges = np.asarray(histogram["edges"], dtype=float)
    axes.stairs(counts / counts.sum() / np.diff(edges), edges, fill=True, color=BARS)
    x = np.linspace(edges[0], edges[-1], POINTS)
    densities = [weight * gaussian(x, mean, deviation) for weight, mean, deviation in components]
    for density, color, (weight, mean, deviation) in zip(densities, (BLUE, ORANGE), components):
        axes.plot(x, density, color=color, label=f"{weight:.0%}: {short(mean)} ± {short(deviation)}")
    if len(densities) > 1:
        axes.plot(x, sum(densities), color=INK, linestyle="--", linewidth=1.2, label="sum")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.35 * max(axes.dataLim.y1, *map(np.max, densities), 0) if densities else None)
    axes.set_yticks([])
    axes.set_xlabel(label)
    axes.set_ylabel("density of the pixels")
    if densities:
        axes.legend(loc="upper right")


def gaussian(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """Density of the normal distribution."""
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


def short(value: float) -> str:
    """A number for a legend: three digits, or whole with separators from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _heading(record: dict) -> str:
    if record.get("status") == "failed":
        return wrap(f"{record['name']}: failed. {record.get('message') or ''}", 120)
    parts = [record["name"]]
    if record.get("fit") == "shared":
        parts.append(f"gain {record['alpha']:.4g}")
    if record.get("message"):
        parts.append(record["message"])
    return wrap("    ".join(parts), 120)
