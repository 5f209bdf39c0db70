"""The particle diameter from labels."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import X, Y
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.picking.diameter import estimate_diameter, profile_edge, radial_profile

PIXEL, RADIUS = 2.0, 12


def micrograph_of_discs(folder, depth, positions):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:256, :256]
    image = rng.normal(0, 1, (256, 256))
    for px, py in positions:
        image -= depth * expit(4 * (RADIUS - np.hypot(x - px, y - py)))
    write_mrc(folder / "a.mrc", image, PIXEL)
    return read_micrographs(folder / "a.mrc")


POSITIONS = [(60 + 45 * i, 60 + 45 * j) for i in range(4) for j in range(4)]


def test_radial_profile_of_a_cone_is_its_slope():
    y, x = np.mgrid[-10:11, -10:11]
    assert radial_profile(np.hypot(x, y)) == pytest.approx(np.arange(11), abs=0.25)


def test_profile_ends_where_it_comes_back_even_with_a_fringe():
    profile = np.concatenate([np.full(10, -5.0), [-3, -1, 0.5, 1.0, 0.5], np.zeros(25)])
    assert profile_edge(profile) == 12


def test_diameter_of_discs(tmp_path):
    micrographs = micrograph_of_discs(tmp_path, 1.0, POSITIONS)
    labels = pd.DataFrame(POSITIONS, columns=[X, Y])
    assert estimate_diameter(micrographs, [labels]) == pytest.approx(2 * RADIUS * PIXEL, rel=0.1)


def test_too_few_labels_and_labels_on_nothing_ask_for_the_diameter(tmp_path):
    micrographs = micrograph_of_discs(tmp_path, 0.0, POSITIONS)
    labels = pd.DataFrame(POSITIONS, columns=[X, Y])
    with pytest.raises(InputError, match="Pass --diameter"):
        estimate_diameter(micrographs, [labels[:3]])
    with pytest.raises(InputError, match="Pass --diameter"):
        estimate_diameter(micrographs, [labels])
