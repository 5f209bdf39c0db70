"""Preparation of micrographs, labels, and the sampling of training pixels."""

import numpy as np
import pytest
from scipy.fft import dctn

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.picking.inputs import WORKING_DIAMETER, background, flatten, resample, working_shape
from siamese2d_engine.picking.labels import class_prior, disc, label_mask, unlabeled_prior
from siamese2d_engine.picking.network import ARCHITECTURES
from siamese2d_engine.picking.preparation import prepare_micrograph
from siamese2d_engine.picking.sampling import LabelledMicrograph, Sampler
from siamese2d_engine.picking.splitting import held_out_labels

NONE = np.zeros((0, 2))


def _blob(shape, x, y, width):
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width ** 2)).astype(np.float32)


@pytest.mark.parametrize("shape", [(50, 40), (173, 260)])
def test_resampling_keeps_mean_and_positions(shape):
    image = _blob((100, 120), 70.25, 33.5, 9.0)
    small = resample(image, shape)
    assert small.shape == shape and small.mean() == pytest.approx(image.mean(), rel=1e-5)
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    x, y = ((small * g).sum() / small.sum() for g in (columns, rows))
    assert (x + 0.5) * 120 / shape[1] - 0.5 == pytest.approx(70.25, abs=0.05)
    assert (y + 0.5) * 100 / shape[0] - 0.5 == pytest.approx(33.5, abs=0.05)


def test_resampling_keeps_low_frequencies_exactly():
    image = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)
    small = resample(image, (32, 24))
    np.testing.assert_allclose(dctn(small, norm="forward"), dctn(image, norm="forward")[:32, :24], atol=1e-5)


def test_particles_get_the_working_diameter():
    assert working_shape((1000, 2000), diameter=2 * WORKING_DIAMETER) == (500, 1000)


def test_preparation_does_not_see_gain_and_offset():
    image = np.random.default_rng(1).normal(size=(90, 80)).astype(np.float32)
    np.testing.assert_allclose(flatten(image * 37 + 1200, 20), flatten(image, 20), atol=1e-3)


def test_preparation_removes_the_background_and_bounds_contamination():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(200, 200)).astype(np.float32)
    ramp = np.linspace(0, 30, 200, dtype=np.float32)[None]
    spoilt = noise.copy()
    spoilt[150:180, 20:60] -= 400
    clean, flat = flatten(spoilt, 20), flatten(noise + 0.1 * ramp, 20)
    assert np.abs(clean).max() <= 4
    assert clean[:100].std() == pytest.approx(1, abs=0.1)
    assert np.abs(flat[:, 30:60].mean() - flat[:, 140:170].mean()) < 0.1


def test_surroundings_of_ice_and_carbon_are_flat():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(400, 400)).astype(np.float32)
    rows, columns = np.mgrid[:400, :400]
    spoilt = noise - 3 * (np.hypot(rows - 120, columns - 200) < 18) - 2 * (rows > 300)
    flat, plain = flatten(spoilt, 20), flatten(noise, 20)
    ring = np.abs(np.hypot(rows - 120, columns - 200) - 28) < 6
    edge = (rows > 270) & (rows < 285)
    for part in (ring, edge):
        assert abs(flat[part].mean() - plain[part].mean()) < 0.1


def test_the_background_is_a_median_of_block_averages():
    image = np.random.default_rng(4).normal(size=(61, 78)).astype(np.float32)
    image[:, 40:] += 50
    level = background(image, 20)
    assert level.shape == image.shape
    assert np.abs(level[:, :20]).max() < 1 and np.abs(level[:, 60:] - 50).max() < 1


def test_a_disc_of_radius_3_has_29_pixels():
    assert disc(3).sum() == 29
    assert label_mask((40, 40), np.array([[20.2, 10.9]])).sum() == 29
    assert label_mask((40, 40), np.array([[20.0, 10.0], [20.0, 10.0]])).sum() == 29


def test_label_mask_is_centred_and_cut_at_the_border():
    mask = label_mask((30, 40), np.array([[7.0, 12.0], [0.0, 0.0]]))
    rows, columns = np.nonzero(mask[6:])
    assert (rows.mean() + 6, columns.mean()) == (12, 7)
    assert mask[:6].sum() == 4 + 3 + 3 + 1


def test_priors():
    assert class_prior(60, 512 * 512) == pytest.approx(60 * 29 / 512 ** 2)
    assert class_prior(1e9, 100) == 0.5
    # 10 of 100 pixels are particles, 4 of them labelled: 6 of the other 96.
    assert unlabeled_prior(0.10, 0.04) == pytest.approx(6 / 96)
    assert unlabeled_prior(0.10, 0.10) == pytest.approx(0.01)


def _sampler(labels, hidden=NONE, shape=(150, 170), name="small"):
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    image = (rows * 1000 + columns).astype(np.float32)
    return Sampler([LabelledMicrograph(image, np.asarray(labels, float), np.asarray(hidden, float))],
                   ARCHITECTURES[name], hidden_radius=10)


def test_windows_show_the_pixels_that_their_masks_speak_of():
    sampler = _sampler([[60.0, 40.0], [0.0, 149.0], [169.0, 3.0]])
    margin, stride = sampler.architecture.margin, sampler.architecture.stride
    images, masks = sampler.positives(200, np.random.default_rng(0))
    seen = set()
    for image, mask in zip(images, masks):
        for i, j in zip(*np.nonzero(mask)):
            value = image[margin + stride * i, margin + stride * j]
            y, x = divmod(int(value), 1000)
            seen.add((y, x))
    expected = {(y, x) for y, x in zip(*np.nonzero(label_mask((150, 170), np.array([[60, 40], [0, 149], [169, 3]]))))}
    assert seen == expected


def test_unlabeled_crops_leave_out_labels_and_hidden_surroundings():
    sampler = _sampler([[60.0, 40.0]], [[100.0, 90.0]])
    margin, stride = sampler.architecture.margin, sampler.architecture.stride
    images, masks = sampler.unlabeled(60, 40, np.random.default_rng(0))
    centres = images[:, margin:, margin:][:, ::stride, ::stride][:, :40, :40]
    y, x = np.divmod(centres[masks].astype(int), 1000)
    assert len(set(zip(y, x))) > 10_000
    assert not (label_mask((150, 170), np.array([[60, 40]]))[y, x]).any()
    assert np.hypot(y - 90, x - 100).min() > 10


def test_crops_larger_than_the_image_are_cut_to_it():
    images, masks = _sampler([[5.0, 5.0]], shape=(30, 37)).unlabeled(2, 64, np.random.default_rng(0))
    assert masks.shape[1:] == (15, 15) and images.shape[1] == ARCHITECTURES["small"].input_size(15)


def test_labelled_share():
    assert _sampler([[60.0, 40.0]]).labelled_share == pytest.approx(29 / (150 * 170))


def test_whole_micrographs_are_held_out_when_there_are_enough():
    hidden = held_out_labels([10, 0, 12, 11, 9, 13, 10], 0.2, seed=3)
    counts = [h.sum() for h in hidden]
    assert all(h.all() or not h.any() for h in hidden) and 9 <= sum(counts) <= 20


def test_single_labels_are_held_out_when_few_micrographs_are_labelled():
    hidden = held_out_labels([30, 0, 20], 0.2, seed=0)
    assert [len(h) for h in hidden] == [30, 0, 20] and sum(h.sum() for h in hidden) == 10


def test_few_labels_are_all_used():
    assert not any(h.any() for h in held_out_labels([4, 4, 4, 4], 0.2, seed=0))


@pytest.mark.parametrize("diameter, words", [(7.0, "at least 8"), (500.0, "more than this image")])
def test_unsuitable_diameters_are_refused(tmp_path, diameter, words):
    write_mrc(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(100, 120)).astype(np.float32), 1.0)
    with pytest.raises(InputError, match=words) as caught:
        prepare_micrograph(tmp_path / "a.mrc", 1.0, diameter)
    assert "a.mrc" in str(caught.value)


def test_constant_micrograph_is_refused(tmp_path):
    write_mrc(tmp_path / "flat.mrc", np.full((100, 120), 3, dtype=np.float32), 1.0)
    with pytest.raises(InputError, match="flat.mrc"):
        prepare_micrograph(tmp_path / "flat.mrc", 1.0, 20.0)
