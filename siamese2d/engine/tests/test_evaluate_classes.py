"""Scores of classes against small cases worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.errors import InputError
from siamese2d_engine.evaluate.classes import (
    angles_to_mean,
    angular_spread,
    class_rows,
    majority_species,
    species_scores,
)
from siamese2d_engine.evaluate.stage import evaluate_classes_to
from siamese2d_engine.io.star import write_star


def test_purity_and_junk_by_hand():
    labels = np.array([1, 1, 1, 2, 2, 3, 3, 3])
    species = np.array([1, 1, 2, 2, 2, 0, 0, 1])
    scores = species_scores(labels, species)
    assert scores["purity"] == pytest.approx(6 / 8)
    assert scores["junk_recall"] == 1.0
    assert scores["junk_precision"] == pytest.approx(2 / 3)


def test_information_and_pair_counting_by_hand():
    labels, species = np.array([1, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 2, 2, 2])
    # Joint counts [[2, 1], [0, 3]]; mutual information over the mean of the two entropies.
    joint = np.array([[2, 1], [0, 3]]) / 6
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))
    entropy = [-np.sum(p * np.log(p)) for p in (joint.sum(1), joint.sum(0))]
    scores = species_scores(labels, species)
    assert scores["nmi"] == pytest.approx(np.nansum(terms) / np.mean(entropy))
    # Pairs together in both: 1 + 3 = 4; in classes 3 + 3 = 6; in species 1 + 6 = 7; of 15. Hubert & Arabie 1985.
    expected = 6 * 7 / 15
    assert scores["ari"] == pytest.approx((4 - expected) / ((6 + 7) / 2 - expected))


def test_without_junk_there_is_no_recall_of_it():
    scores = species_scores(np.array([1, 2]), np.array([1, 2]))
    assert (scores["purity"], scores["junk_recall"], scores["junk_precision"]) == (1.0, None, None)


def test_ties_go_to_a_species_rather_than_junk():
    labels = np.array([1, 1, 2, 2, 2])
    np.testing.assert_array_equal(majority_species(labels, np.array([0, 2, 0, 0, 1])), [2, 2, 0, 0, 0])
    np.testing.assert_array_equal(majority_species(labels, np.array([3, 2, 1, 1, 1])), [2, 2, 1, 1, 1])


def directions_at(*degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)


def test_angles_to_the_mean_direction():
    np.testing.assert_allclose(angles_to_mean(directions_at(0, 40), mirror=False), [20, 20])
    np.testing.assert_allclose(angles_to_mean(directions_at(10, 30, 50), mirror=False), [20, 0, 20], atol=1e-5)
    # Opposite views are mirror images: strictly far apart, modulo mirror 20 degrees from their axis.
    np.testing.assert_allclose(angles_to_mean(directions_at(0, 220), mirror=True), [20, 20])
    np.testing.assert_allclose(angles_to_mean(directions_at(0, 220), mirror=False), [70, 70])


def test_spread_is_the_mean_over_particles_and_leaves_single_ones_out():
    directions = directions_at(0, 40, 100, 100, 100, 100, 7)
    labels = np.array([1, 1, 2, 2, 2, 2, 3])
    assert angular_spread(labels, directions, mirror=False) == pytest.approx(2 * 20 / 6, abs=1e-4)
    labels = np.array([1, 1, 0, 0, -1, -1, 3])  # no classes below 1
    assert angular_spread(labels, directions, mirror=False) == pytest.approx(20)
    assert angular_spread(np.array([1, 2]), directions[:2], mirror=True) is None


def test_uniform_views_are_57_degrees_from_any_axis():
    # Modulo mirror the mean angle of uniform views to a fixed axis is 1 radian; the fitted axis makes it a bit less.
    views = np.random.default_rng(0).normal(size=(20000, 3))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    assert angular_spread(np.ones(20000, dtype=int), views, mirror=True) == pytest.approx(np.degrees(1), abs=1.0)
    assert angular_spread(np.ones(20000, dtype=int), views, mirror=False) == pytest.approx(90, abs=1.5)


def test_rows_of_classes_are_sorted_by_size_and_ignore_views_of_junk():
    labels = np.array([1, 1, 2, 2, 2, 0])
    species = np.array([1, 1, 2, 2, 0, 1])
    rows = class_rows(labels, species, directions_at(0, 40, 90, 90, 0, 0))
    assert [(row["class"], row["size"], row["species"]) for row in rows] == [(2, 3, 2), (1, 2, 1)]
    assert rows[0]["purity"] == pytest.approx(2 / 3)
    assert rows[0]["spread"] == pytest.approx(0, abs=1e-5) and rows[1]["spread"] == pytest.approx(20)
    assert "spread" not in class_rows(labels, species, None)[0]


def particle_files(folder, **columns):
    """Six particles in two classes, and the truth about their images with one that is junk."""
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["o"]})
    names = [f"{i:06d}@old/stack.mrcs" for i in range(1, 7)]
    truth = pd.DataFrame(
        {
            "rlnImageName": names,
            "siamese2dSpecies": [1, 1, 1, 2, 2, 0],
            "rlnAngleRot": [0.0, 40.0, 20.0, 0.0, 0.0, 77.0],
            "rlnAngleTilt": [90.0, 90.0, 90.0, 0.0, 180.0, 77.0],
        }
    )
    write_star(folder / "truth.star", {"optics": optics, "particles": truth})
    table = pd.DataFrame({"rlnImageName": names, "rlnClassNumber": [1, 1, 1, 2, 2, 2]} | columns)
    # Other order and folder, as after a program that sorted and linked.
    table = table.iloc[::-1].assign(
        rlnImageName=[name.replace("old/", "new/place/") for name in table["rlnImageName"][::-1]]
    )
    write_star(folder / "particles.star", {"optics": optics, "particles": table})
    return {"particles": folder / "particles.star", "truth": folder / "truth.star"}


def test_classes_by_image_names(tmp_path, capsys):
    result = evaluate_classes_to(tmp_path / "out", **particle_files(tmp_path))
    assert (result["particles"], result["matched"], result["junk"], result["classes"]) == (6, 6, 1, 2)
    assert result["purity"] == pytest.approx(5 / 6)
    # Class 1: 20, 20, 0 degrees from its mean. Class 2: opposite views, at right angles to their mean, one axis.
    assert result["spread"] == pytest.approx((40 + 180) / 5, abs=1e-3)
    assert result["spread_mirror"] == pytest.approx(40 / 5, abs=1e-3)
    assert result["junk_recall"] == 0.0 and result["junk_precision"] is None
    assert "purity by species  0.833" in capsys.readouterr().out


def test_unassigned_particles_are_counted(tmp_path):
    files = particle_files(tmp_path, rlnClassNumber=[1, 1, 1, 2, 2, 0])
    result = evaluate_classes_to(tmp_path / "out", **files)
    assert (result["unassigned"], result["classes"], result["smallest_class"], result["largest_class"]) == (1, 2, 2, 3)
    assert (result["purity"], result["junk_recall"]) == (1.0, 1.0)


def coordinate_files(folder):
    """Two true particles in one micrograph; extracted near them, far off, and twice on one of them."""
    truth = pd.DataFrame(
        {
            "rlnMicrographName": ["run/m1.mrc"] * 2,
            "rlnCoordinateX": [100.0, 200.0],
            "rlnCoordinateY": [100.0, 200.0],
            "siamese2dSpecies": [1, 2],
        }
    )
    write_star(folder / "truth.star", {"particles": truth})
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i}@stack.mrcs" for i in range(1, 5)],
            "rlnMicrographName": ["other/m1.mrc"] * 4,
            "rlnCoordinateX": [104.0, 101.0, 203.0, 300.0],
            "rlnCoordinateY": [100.0, 100.0, 200.0, 300.0],
            "rlnClassNumber": [3, 1, 2, 3],
        }
    )
    write_star(folder / "particles.star", {"particles": particles})
    return {"particles": folder / "particles.star", "truth": folder / "truth.star"}


def test_classes_by_coordinates(tmp_path):
    result = evaluate_classes_to(tmp_path / "out", radius=10.0, **coordinate_files(tmp_path))
    assert (result["matched"], result["junk"], result["purity"], result["junk_recall"]) == (2, 2, 1.0, 1.0)
    assert result["spread"] is None  # the truth has no angles


@pytest.mark.parametrize(
    "options, words",
    [({}, "pass --radius"), ({"radius": 10.0, "truth_scale": 5.0}, "none of its particles lies within")],
)
def test_coordinates_that_do_not_fit(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        evaluate_classes_to(tmp_path / "out", **coordinate_files(tmp_path), **options)


def test_a_table_without_classes(tmp_path):
    files = particle_files(tmp_path)
    with pytest.raises(InputError, match="truth.star: no rows with rlnClassNumber"):
        evaluate_classes_to(tmp_path / "out", particles=files["truth"], truth=files["truth"])


def test_a_class_that_is_no_number(tmp_path):
    files = particle_files(tmp_path, rlnClassNumber=["1", "x", "1", "1", "1", "1"])
    with pytest.raises(InputError, match="particles.star, row 5: rlnClassNumber is not a number"):
        evaluate_classes_to(tmp_path / "out", **files)
