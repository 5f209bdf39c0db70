"""The parts of picking without labels: blobs, the learned filter, templates, odd candidates, the threshold."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.star import write_star
from siamese2d_engine.picking.blob_picker import best_of_sizes, is_blob
from siamese2d_engine.picking.blobs import difference_of_gaussians, even_contrast, noise_units, smooth
from siamese2d_engine.picking.oddities import feature_maps, features, usual
from siamese2d_engine.picking.ring_filter import apply_filter, learn_filter
from siamese2d_engine.picking.templates import correlation_map, disc_mask, read_templates, turned_templates
from siamese2d_engine.picking.unlabeled_threshold import separating_score


def grid(shape, x, y):
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    return np.hypot(columns - x, rows - y)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("width", [1.5, 4.0, 17.0])
def test_smoothing_is_a_gaussian_average_with_mirrored_edges(width):
    image = noise((90, 70))
    expected = ndimage.gaussian_filter(image.astype(float), width, mode="reflect", truncate=8)
    np.testing.assert_allclose(smooth(image, width), expected, atol=2e-5)


def test_a_disc_answers_best_to_its_own_diameter():
    disc = (grid((201, 201), 100, 100) <= 20).astype(float)
    answers = {d: difference_of_gaussians(disc, d)[100, 100] for d in (25, 32, 40, 50, 64)}
    assert max(answers, key=answers.get) == 40


def test_difference_of_gaussians_changes_sign_where_the_laplacian_does():
    """A point's response is the filter itself: zero at r^2 = 2 s^2 = d^2 / 4, the disc's own radius."""
    point = np.zeros((201, 201))
    point[100, 100] = 1
    profile = difference_of_gaussians(point, 40.0)[100, 100:]
    assert profile[19] > 0 > profile[21]


def test_contrast_becomes_even_and_empty_places_stay_quiet():
    image = noise((128, 256))
    image[:, 200:] *= 5
    image[:40, :40] *= 0.01
    even = even_contrast(image, 20.0)
    assert even[50:, 225:].std() == pytest.approx(1, rel=0.1)
    assert 0.7 < even[50:, :150].std() < 1.05
    assert even[5:30, 5:30].std() < 0.05
    assert noise_units(image, 10.0)[:, 225:].std() == pytest.approx(1, rel=0.1)


def test_learned_filter_finds_the_centres_of_rings():
    """Rings in noise, seeds beside their centres: the filter has the ring's radius and peaks at the centre."""
    rng = np.random.default_rng(1)
    image, centres = noise((300, 300), 2), [(40 + 55 * i, 40 + 55 * j) for i in range(5) for j in range(5)]
    for x, y in centres:
        image += 2 * np.exp(-((grid(image.shape, x, y) - 8) / 1.5) ** 2)
    seeds = np.array(centres) + rng.uniform(-1, 1, size=(25, 2))
    kernel = learn_filter([image - image.mean()], [seeds], 20.0)
    assert kernel.shape == (51, 51) and kernel.sum() == pytest.approx(0, abs=1e-4)
    middle = kernel[25, 25:]
    assert middle[:14].argmax() == pytest.approx(8, abs=1)
    scores = apply_filter(image, kernel)
    for x, y in centres:
        window = scores[y - 6:y + 7, x - 6:x + 7]
        assert np.unravel_index(window.argmax(), window.shape) == pytest.approx((6, 6), abs=1)


def test_filter_is_a_correlation_with_mirrored_edges():
    image, kernel = noise((40, 50)), noise((7, 7), 1)
    expected = ndimage.correlate(image.astype(float), kernel.astype(float), mode="reflect")
    np.testing.assert_allclose(apply_filter(image, kernel), expected, atol=1e-4)


def test_no_filter_from_a_handful_of_seeds():
    assert learn_filter([noise((90, 90))], [np.array([[45.0, 45], [3, 3], [88, 88], [2, 80], [85, 1]])], 20.0) is None


def test_correlation_is_the_correlation_coefficient():
    image, templates = noise((60, 70)) + 3, turned_templates(noise((2, 30, 30), 5), 1.0, 10.0, angles=3)
    inside = disc_mask(10.0)
    found = correlation_map(image, templates, inside)
    reach = inside.shape[0] // 2
    padded = np.pad(image, reach, mode="symmetric")
    for y, x in ((0, 0), (30, 41), (59, 69), (12, 3)):
        window = padded[y:y + inside.shape[0], x:x + inside.shape[1]][inside]
        expected = max(np.corrcoef(window, template[inside])[0, 1] for template in templates)
        assert found[y, x] == pytest.approx(expected, abs=1e-4)


def test_tiles_do_not_change_the_correlation():
    image, templates = noise((83, 120)), turned_templates(noise((1, 24, 24), 5), 1.0, 12.0, angles=4)
    whole = correlation_map(image, templates, disc_mask(12.0))
    np.testing.assert_allclose(correlation_map(image, templates, disc_mask(12.0), tile=32), whole, atol=1e-4)


def test_a_turned_and_scaled_template_is_found_at_its_centre():
    """A template at twice the sampling, turned by a right angle and set down at a known place."""
    rows, columns = np.mgrid[:48, :48] - 24.0
    template = np.exp(-((columns - 7) ** 2 + rows**2) / 30) - 0.5 * np.exp(-(columns**2 + (rows + 8) ** 2) / 30)
    turned = turned_templates(template[None].astype(np.float32), 0.5, 20.0, angles=4)
    image = 0.01 * noise((64, 64))
    image[20 - 12:20 + 13, 30 - 12:30 + 13] += turned[1]
    scores = correlation_map(image, turned, disc_mask(20.0))
    assert np.unravel_index(scores.argmax(), scores.shape) == (20, 30) and scores.max() > 0.9
    # Content at (x, y) = (7, 0) of the template is at half the distance, turned into the y axis.
    brightest = np.unravel_index(turned[1].argmax(), turned[1].shape)
    assert brightest[1] == pytest.approx(12, abs=1) and abs(brightest[0] - 12) == pytest.approx(3.5, abs=1)


def test_templates_are_read_from_a_stack_and_from_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stack = noise((3, 16, 16))
    stack[1] = 0
    write_mrc("classes.mrcs", stack, 3.0)
    images, pixel_size = read_templates(tmp_path / "classes.mrcs")
    np.testing.assert_array_equal(images, stack[[0, 2]])
    assert pixel_size == 3.0
    write_star("classes.star", {"classes": pd.DataFrame({"rlnReferenceImage": ["000003@classes.mrcs"]})})
    np.testing.assert_array_equal(read_templates(tmp_path / "classes.star", 2.0)[0], stack[[2]])
    write_star("wrong.star", {"classes": pd.DataFrame({"rlnReferenceImage": ["000009@classes.mrcs"]})})
    with pytest.raises(InputError, match="names no image"):
        read_templates(tmp_path / "wrong.star")
    write_mrc("empty.mrcs", np.zeros((2, 16, 16)), 3.0)
    with pytest.raises(InputError, match="all templates are empty"):
        read_templates(tmp_path / "empty.mrcs")
    with pytest.raises(InputError, match="does not exist"):
        read_templates(tmp_path / "nowhere.mrcs")


def test_peaks_on_edges_are_no_blobs():
    rows, columns = np.mgrid[:40, :60]
    ridge = np.exp(-((rows - 20) ** 2) / 18) + 0.001 * np.exp(-((columns - 30) ** 2) / 18)
    blob = np.exp(-((rows - 20) ** 2 + (columns - 30) ** 2) / 18)
    stretched = np.exp(-((rows - 20) ** 2 / 18 + (columns - 30) ** 2 / 50))
    peak = np.array([[30.0, 20.0, 1.0]])
    assert [bool(is_blob(image, peak)[0]) for image in (ridge, blob, stretched)] == [False, True, True]


def test_a_better_candidate_of_any_size_takes_the_place():
    candidates = np.array([[0.0, 0, 3, 20], [25, 0, 5, 60], [100, 0, 4, 20], [111, 0, 2, 20], [120, 0, 1, 20]])
    kept = best_of_sizes(candidates)
    # 25 px from a particle of 60: nearer than 0.6 (20 + 60) / 2 = 24 it is not.
    assert kept[:, 0].tolist() == [25, 100, 0, 120]


def test_odd_candidates_are_those_unlike_the_best():
    """Forty equal particles, one dot of gold, one particle on carbon."""
    image = noise((400, 400), 3)
    places = np.array([(30 + 50 * i, 30 + 50 * j) for i in range(8) for j in range(6)], dtype=float)
    for x, y in places[:46]:
        image += 3 * np.exp(-(grid(image.shape, x, y) / 5) ** 2)
    image += 30 * np.exp(-(grid(image.shape, *places[46]) / 2) ** 2)
    x, y = places[47].astype(int)
    image[y - 25:y + 26, x - 25:x + 26] *= 4
    maps = feature_maps(np.clip(image, -4, 4), image, 20.0)
    values = features(maps, places)
    odd = usual(values, np.full(48, 5.0)).is_odd(values)
    assert odd[46] and odd[47] and odd[:46].sum() <= 2


def test_threshold_separates_two_groups_as_counting_all_cuts_does():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(1.8, 0.3, 300), rng.normal(6, 0.8, 60)])
    above = np.sort(scores[scores > 1])
    between = [len(a) * len(b) * (a.mean() - b.mean()) ** 2 for a, b in
               (np.split(above, [i]) for i in range(1, len(above)))]
    cut = int(np.argmax(between)) + 1
    assert separating_score(scores) == pytest.approx((above[cut - 1] + above[cut]) / 2)
    assert 2.8 < separating_score(scores) < 4.5
    assert separating_score(np.array([])) == 1.0
