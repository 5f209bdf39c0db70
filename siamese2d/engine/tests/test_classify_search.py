"""The parts of classification against brute force in float64."""

import numpy as np
import pytest
import torch

from siamese2d_engine.classify import search
from siamese2d_engine.classify.averages import Spectra, Sums, estimate_spectra, wiener
from siamese2d_engine.classify.balance import SMALLEST, balanced_offsets
from siamese2d_engine.classify.cells import likely_cells, shift_grid
from siamese2d_engine.classify.passes import PolarImages, Resolution, aligned_harmonics
from siamese2d_engine.classify.polar import Harmonics, PolarGrid, harmonics_needed
from siamese2d_engine.classify.prepare import CircularMask, fourier_crop
from siamese2d_engine.classify.schedule import Recipe, schedule
from siamese2d_engine.classify.search import (
    Poses, References, best_over_rotations, rotation_profile, shift_before_rotation)
from siamese2d_engine.classify.split import (
    Divisions, Halves, divide_classes, first_component, replace_classes, unfold_classes, upper_half)

GRID = PolarGrid(box=20, step=1 / 20, rings=6, half_angles=32)
HARMONICS = Harmonics(24, 32)


def random_blobs(n, seed=0):
    """Centres (n, 4, 2) and amplitudes (n, 4) of blobs near the centre."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-3, 3, (n, 4, 2)), rng.uniform(-1, 2, (n, 4))


def draw(centres, amplitudes, box=20, width=1.4):
    y, x = np.mgrid[:box, :box] - box // 2
    distances = (x - centres[..., 0, None, None]) ** 2 + (y - centres[..., 1, None, None]) ** 2
    return (amplitudes[..., None, None] * np.exp(-distances / (2 * width**2))).sum(-3)


def random_images(n, seed=0):
    return draw(*random_blobs(n, seed))


def by_hand(image, kx, ky):
    """Transform at single points, straight from its definition."""
    box = len(image)
    y, x = np.mgrid[:box, :box] - box // 2
    return (image * np.exp(-2j * np.pi * (kx * x + ky * y))).sum()


def harmonics_of(images, grid=GRID, harmonics=HARMONICS):
    samples = grid.sample(torch.as_tensor(images, dtype=torch.float32))
    return harmonics.join(*harmonics.analyse(samples)).permute(1, 0, 2)      # (n, count, rings)


def moved_image(centres, amplitudes, psi, shift, flip):
    """The image with its content at R(psi) (x + shift), then mirrored in x."""
    x, y = (centres + shift).T
    new_x, new_y = np.cos(psi) * x - np.sin(psi) * y, np.sin(psi) * x + np.cos(psi) * y
    return draw(np.stack([-new_x if flip else new_x, new_y], axis=1), amplitudes)


def test_samples_equal_the_transform_by_its_definition():
    image = random_images(1)[0]
    samples = GRID.sample(torch.as_tensor(image[None], dtype=torch.float32))[0]
    kx, ky = GRID.points
    for ring, angle in [(0, 0), (2, 5), (5, 31), (3, 16)]:
        expected = by_hand(image, float(kx[ring, angle]), float(ky[ring, angle]))
        assert abs(complex(samples[ring, angle]) - expected) < 1e-4 * np.abs(image).sum()


def test_ramps_move_the_image_in_the_direction_of_the_shift():
    image = random_images(1)[0]
    moved = np.roll(image, (2, -3), axis=(0, 1))          # y by 2, x by -3
    both = GRID.sample(torch.as_tensor(np.stack([image, moved]), dtype=torch.float32))
    ramp = GRID.ramps(torch.tensor([[-3.0, 2.0]]))[0]
    torch.testing.assert_close(both[0] * ramp, both[1], atol=2e-2, rtol=0)


def test_a_step_of_shifts_turns_the_last_ring_by_its_cycles():
    step = GRID.shift_step(0.25, rings=4)
    phases = GRID.ramps(torch.tensor([[step, 0.0]]))[0, 3].angle().abs() / (2 * np.pi)
    assert float(phases.max()) == pytest.approx(0.25, rel=1e-3)


def test_harmonics_equal_the_mean_over_the_whole_circle():
    image = random_images(1)[0]
    found = harmonics_of(image[None])[0]
    angles = 2 * np.pi * np.arange(64) / 64
    for ring in (1, 5):
        q = float(GRID.radii[ring])
        circle = np.array([by_hand(image, q * np.cos(t), q * np.sin(t)) for t in angles])
        for position in (0, 3, 12, 20):
            m = int(HARMONICS.orders[position])
            expected = (circle * np.exp(-1j * m * angles)).mean()
            assert abs(complex(found[position, ring]) - expected) < 1e-4 * np.abs(image).sum()


@pytest.mark.parametrize("psi, shift, flip", [(0.7, (0, 0), False), (-2.1, (1.5, -0.5), False), (2.6, (-1, 2), True)])
def test_aligned_harmonics_are_those_of_the_transformed_image(psi, shift, flip):
    centres, amplitudes = (values[0] for values in random_blobs(1, seed=3))
    image = draw(centres, amplitudes)
    samples = GRID.sample(torch.as_tensor(image[None], dtype=torch.float32))
    images = PolarImages(GRID, samples, torch.ones(1, 6), torch.ones(1, 6), torch.ones(6), 8.0)
    poses = Poses(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[flip]]), torch.tensor([[psi]]),
                  torch.tensor([[shift]], dtype=torch.float32), torch.ones(1, 1), torch.zeros(1))
    found = aligned_harmonics(images, torch.tensor([0]), poses, Resolution(6, 1, 24), HARMONICS)
    expected = harmonics_of(moved_image(centres, amplitudes, psi, shift, flip)[None])
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-3


@pytest.mark.parametrize("mirror, cached, across", [(True, search.CACHED, search.ACROSS), (False, 70, 2), (True, 1, 1)])
def test_best_rotation_equals_brute_force(monkeypatch, mirror, cached, across):
    monkeypatch.setattr(search, "CACHED", cached)
    monkeypatch.setattr(search, "ACROSS", across)
    images, averages = harmonics_of(random_images(3, 1)), harmonics_of(random_images(2, 2))
    weights = torch.linspace(1, 2, 6)
    refs = References(averages.permute(1, 2, 0).contiguous(), torch.zeros(1, 2), weights, HARMONICS, GRID)
    parts = HARMONICS.analyse(GRID.sample(torch.as_tensor(random_images(3, 1), dtype=torch.float32)))
    found = best_over_rotations(parts, refs.matrices(torch.tensor([0, 1])), HARMONICS, mirror)
    assert found.shape == (3, 2, 2 if mirror else 1)
    angles = np.pi * np.arange(2 * HARMONICS.rotations) / HARMONICS.rotations
    orders = HARMONICS.orders.numpy()
    multiplicity = np.where(orders == 0, 1, 2)[:, None]
    for i in range(3):
        for k in range(2):
            for flip in range(found.shape[2]):
                a = averages[k].numpy().conj() if flip else averages[k].numpy()
                series = (images[i].numpy().conj() * a * multiplicity * weights.numpy()).sum(1)
                brute = max((np.exp(1j * orders * psi) * series).sum().real for psi in angles)
                assert float(found[i, k, flip]) == pytest.approx(brute, rel=1e-4)


def test_profile_peaks_at_the_rotation_that_aligns():
    centres, amplitudes = (values[0] for values in random_blobs(1, seed=5))
    psi = 1.1
    image, turned = draw(centres, amplitudes), moved_image(centres, amplitudes, psi, (0, 0), False)
    angles = 2 * torch.pi * torch.arange(256) / 256
    profile = rotation_profile(harmonics_of(image[None]), harmonics_of(turned[None]), HARMONICS.rotation_matrix(angles))
    assert float(angles[profile[0].argmax()]) == pytest.approx(psi, abs=0.03)


def test_harmonics_needed_leaves_little_out():
    # A point at the border of the support has the most harmonics: Bessel functions of 2 pi q s.
    from scipy.special import jv
    for radius, support in [(0.1, 10), (0.25, 30), (0.4, 60)]:
        count = harmonics_needed(radius, support)
        assert np.abs(jv(np.arange(count, count + 50), 2 * np.pi * radius * support)).max() < 0.25
        left_out = 2 * (jv(np.arange(count, count + 50), 2 * np.pi * radius * support) ** 2).sum()
        assert left_out < 0.1


def test_wiener_average_and_spectra_of_planted_classes():
    generator = torch.Generator().manual_seed(0)
    truth = torch.view_as_complex(torch.randn(2, 24, 6, 2, generator=generator))
    truth[:, HARMONICS.orders == 0] = truth[:, HARMONICS.orders == 0].real + 0j
    n, noise = 400, 4.0
    classes = torch.arange(n) // 2 % 2
    images = truth[classes] + torch.view_as_complex(torch.randn(n, 24, 6, 2, generator=generator)) * (noise / 2) ** 0.5
    ctf2 = torch.ones(n, 6)
    sums = Sums(2, 24, 6)
    sums.add(classes, torch.zeros(n, dtype=torch.bool), torch.ones(n), images, ctf2)
    multiplicity = HARMONICS.multiplicity[None, :, None]
    power = (multiplicity * images.abs() ** 2).sum((0, 1))
    # All harmonics together carry the ring's power: of the noise, each of the 47 (m and -m) its share.
    per_ring = float((multiplicity * noise * torch.ones(1, 24, 6)).sum() / 6)
    averages, _ = wiener(sums, Spectra(torch.full((6,), 1e6), torch.full((6,), noise)))
    torch.testing.assert_close(averages.permute(2, 0, 1), truth, atol=1.0, rtol=0)
    spectra = estimate_spectra(sums, averages, power, HARMONICS)
    torch.testing.assert_close(spectra.noise, torch.full((6,), per_ring), rtol=0.05, atol=0)
    expected_signal = (multiplicity * truth.abs() ** 2).sum(1).mean(0)
    torch.testing.assert_close(spectra.signal, expected_signal, rtol=0.15, atol=0)


def test_sums_conjugate_mirrored_images():
    sums = Sums(1, 2, 1)
    image = torch.tensor([[[1 + 2j], [3 - 1j]]])
    sums.add(torch.tensor([0]), torch.tensor([True]), torch.ones(1), image, torch.ones(1, 1))
    sums.add(torch.tensor([0]), torch.tensor([False]), torch.ones(1), image, torch.ones(1, 1))
    sums.complete()
    torch.testing.assert_close(sums.numerator[0], image[0].conj() + image[0])
    assert float(sums.size) == 2


def test_synthesis_undoes_analysis():
    samples = GRID.sample(torch.as_tensor(random_images(2), dtype=torch.float32))
    harmonics = HARMONICS.join(*HARMONICS.analyse(samples))
    torch.testing.assert_close(HARMONICS.synthesise(harmonics.permute(0, 2, 1)), samples, atol=2e-2, rtol=0)


@pytest.mark.parametrize("flip", [False, True])
def test_a_moved_average_stands_for_the_image_moved_before_its_rotation(flip):
    centres, amplitudes = (values[0] for values in random_blobs(1, seed=7))
    psi, shift = 0.9, torch.tensor([1.0, -2.0])
    before = shift_before_rotation(shift, torch.tensor(psi), torch.tensor(flip)).numpy()
    average = harmonics_of(draw(centres, amplitudes)[None])
    refs = References(average.permute(1, 2, 0), shift[None], torch.ones(6), HARMONICS, GRID)
    moved = refs.by_shift[0, 0] / HARMONICS.multiplicity[:, None]
    # The image that, moved by `before`, turned by psi and mirrored, is the average.
    x, y = (np.array([-1, 1]) ** flip * centres).T
    turned = np.stack([np.cos(psi) * x + np.sin(psi) * y, np.cos(psi) * y - np.sin(psi) * x], axis=1)
    image = harmonics_of(draw(turned - before, amplitudes)[None])[0]
    aligned = image * HARMONICS.rotation_matrix(torch.tensor([psi])).conj()[0][:, None]
    aligned = aligned.conj() if flip else aligned
    assert (aligned - moved).abs().max() < 0.02 * moved.abs().max()


@pytest.mark.parametrize("classes, strength, sureness",
                         [(5, 2.0, 1.0), (60, 2.0, 10.0), (60, 13.0, 1.0), (60, 13.0, 40.0)])
def test_offsets_follow_the_soft_sizes(classes, strength, sureness):
    generator = torch.Generator().manual_seed(1)
    attraction = 2 * torch.randn(classes, generator=generator)
    scores = sureness * (torch.randn(40 * classes, classes, generator=generator) + attraction)
    offsets = balanced_offsets(scores, torch.zeros(classes), strength)
    sizes = torch.softmax(scores + offsets, 1).sum(0)
    expected = -strength * torch.log((sizes / 40).clamp_min(SMALLEST))
    torch.testing.assert_close(offsets, expected - expected.mean(), atol=0.03, rtol=0)
    assert sizes.max() < torch.softmax(scores, 1).sum(0).max()


def test_offsets_of_a_class_that_nothing_can_be_drawn_to_stay_finite():
    scores = torch.zeros(100, 2)
    scores[:98, 1], scores[98:, 1] = -1000, 1000
    offsets = balanced_offsets(scores, torch.zeros(2), strength=5.0)
    # 98 and 2 of 50 each, the small class counted as a tenth of that.
    torch.testing.assert_close(offsets, torch.tensor([-0.5, 0.5]) * 5 * np.log(98 / 5), atol=1e-3, rtol=0)


def test_first_component_finds_two_groups():
    generator = torch.Generator().manual_seed(2)
    group = torch.arange(40) % 2
    rows = 0.3 * torch.randn(40, 12, generator=generator)
    rows[:, 4] += 2.0 * group
    upper = upper_half(first_component(rows, torch.randn(12, generator=generator)))
    assert (upper == group.bool()).all() or (upper == ~group.bool()).all()


def test_division_takes_the_classes_that_gain_most():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    upper = torch.tensor([False, True, False, True, False, True])
    new, origins = divide_classes(labels, Divisions(upper, torch.tensor([1.0, 9.0, 5.0])), 5)
    assert new.tolist() == [0, 0, 1, 3, 2, 4]
    assert origins.tolist() == [0, 1, 2, 1, 2]


def test_replacement_dissolves_the_cheapest_class_and_divides_the_best():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    upper = torch.tensor([False, True, False, True, False, True])
    scores = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 8.9], [0, 9, 8.8], [0, 0, 9], [0, 0, 9]])
    new, origins = replace_classes(labels, scores, Divisions(upper, torch.tensor([5.0, 0.1, 0.2])), most=0.5)
    # Class 1 costs 0.3 to dissolve (its members prefer 2); class 0 gains 5 when divided and takes its number.
    assert new.tolist() == [0, 1, 2, 2, 2, 2]
    assert origins.tolist() == [0, 0, 2]
    kept, _ = replace_classes(labels, scores, Divisions(upper, torch.tensor([0.2, 0.1, 0.2])), most=0.5)
    assert kept.tolist() == labels.tolist()


def test_one_of_a_few_classes_may_be_replaced():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    upper = torch.tensor([False, True, False, True, False, True])
    scores = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 8.9], [0, 9, 8.8], [0, 0, 9], [0, 0, 9]])
    new, origins = replace_classes(labels, scores, Divisions(upper, torch.tensor([5.0, 0.1, 0.2])), most=0.15)
    assert new.tolist() == [0, 1, 2, 2, 2, 2] and origins.tolist() == [0, 0, 2]


def test_unfolding_gives_mirrored_images_a_class_of_their_own():
    poses = Poses(torch.tensor([[0], [0], [1], [1], [0]]), torch.tensor([[False], [True], [True], [False], [True]]),
                  torch.arange(5.0)[:, None], torch.zeros(5, 1, 2), torch.ones(5, 1), torch.zeros(5))
    whole, origins = unfold_classes(poses, 2, 4)
    assert whole.classes[:, 0].tolist() == [0, 2, 3, 1, 2] and origins.tolist() == [0, 1, 0, 1]
    assert not whole.flips.any() and whole.psi[:, 0].tolist() == [0, 1, 2, 3, 4]
    # The smallest class stays as it is where fewer are wanted.
    part, origins = unfold_classes(poses, 2, 3)
    assert part.classes[:, 0].tolist() == [0, 2, 1, 1, 2] and origins.tolist() == [0, 1, 0]


def test_refined_division_separates_unequal_groups():
    generator = torch.Generator().manual_seed(4)
    group = torch.arange(60) % 3 == 0
    aligned = 0.3 * torch.randn(60, 5, 2, dtype=torch.complex64, generator=generator)
    aligned[group, 0] += 2
    aligned[~group, 0] -= 2
    halves = Halves(aligned, torch.ones(60, 2), torch.ones(2))
    upper = upper_half(aligned[:, 0].sum(1).real)
    for _ in range(3):
        upper = halves.refined(upper)
    assert torch.equal(upper, group) or torch.equal(upper, ~group)
    assert halves.likelihood(group) + halves.likelihood(~group) > halves.likelihood(torch.ones_like(group))


def test_shift_grid_is_a_disc_with_zero_first():
    grid = shift_grid(4.0, 2.0)
    assert grid.points[0].tolist() == [0, 0]
    assert len(grid.points) == 13
    assert float(grid.points.norm(dim=1).max()) == 4
    sides = grid.points[grid.neighbours[0]] - grid.points[0]
    assert sides.tolist() == [[-2, 0], [2, 0], [0, -2], [0, 2]]
    corner = grid.points.tolist().index([4, 0])
    assert grid.neighbours[corner].tolist()[1:] == [corner] * 3


def test_shifts_are_normally_distributed_beforehand():
    grid = shift_grid(6.0, 1.5, spread=2.0)
    density = np.exp(-(grid.points.double().numpy() ** 2).sum(1) / (2 * 2.0 ** 2))
    np.testing.assert_allclose(grid.log_prior.exp().numpy(), density / density.mean(), rtol=1e-5)
    assert shift_grid(6.0, 1.5).log_prior.abs().max() < 1e-6


def test_cells_are_the_best_classes_at_interpolated_shifts():
    grid = shift_grid(3.0, 1.0)
    centre = torch.tensor([[0.3, -0.8], [1.0, 0.4]])            # of the peaks of two classes
    heights = torch.tensor([50.0, 45.0])
    distances = (grid.points[:, None] - centre).square().sum(2)
    scores = (heights - 2 * distances)[None, :, :, None].expand(-1, -1, -1, 2).clone()
    scores[..., 1] -= 100
    cells = likely_cells(scores, 4, grid)
    # The mirrored ones are hopeless.
    assert cells.column.tolist() == [0, 1] and not cells.flip.any()
    torch.testing.assert_close(cells.moved, centre, atol=1e-4, rtol=0)
    on_grid = scores[0, cells.shift, cells.column, 0]
    torch.testing.assert_close(on_grid + cells.gain, heights, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("fine", [1, 3, 5])
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 24, 50, 100])
def test_schedule_ends_with_the_wanted_classes(classes, fine, mirror):
    recipe = Recipe()
    found = schedule(classes, fine * classes, 12, mirror, recipe)
    for late, rounds in ((found.sure, recipe.sure_rounds), (found.unsure, recipe.unsure_rounds)):
        steps = found.first + late
        numbers = [step.classes for step in steps]
        assert numbers[-1] == classes and steps[-1].mirror == mirror
        # Mirror images are told apart once, when each class can become two.
        changes = [(a, b) for a, b in zip(steps, steps[1:]) if a.mirror != b.mirror]
        assert len(changes) <= 1 and all(b.classes <= 2 * a.classes for a, b in changes)
        assert all(step.rings <= step.doubtful_rings <= 12 for step in steps)
        # A class can be divided once before a pass, so the number at most doubles.
        assert all(b <= 2 * a for a, b in zip(numbers, numbers[1:]))
        # Fine classes are made and grouped so many times.
        assert sum(b < a for a, b in zip(numbers, numbers[1:])) == rounds * (fine > 1)
    assert max(step.classes for step in found.sure) == fine * classes
    fewer = min(fine, recipe.unsure_fine) * classes
    # Where mirror images are told apart late, half as many of both are made.
    half = max(classes, (fewer + 1) // 2)
    assert max(step.classes for step in found.unsure) == (fewer if mirror or classes < 8 else half)
    assert found.rings == 12


def test_unsure_images_are_compared_with_all_of_fewer_fine_classes():
    found = schedule(24, 120, 16, True, Recipe())
    fine = [step for step in found.unsure if step.classes > 24]
    assert max(step.classes for step in fine) == 72
    assert {(step.candidates, step.rings) for step in fine} == {(0, Recipe.doubtful)}
    assert all(step.candidates == Recipe.candidates for step in found.sure if step.classes > 24)


@pytest.mark.parametrize("classes, folded", [(1, False), (4, False), (7, False), (8, True), (20, True)])
def test_few_classes_are_never_of_both_mirror_images(classes, folded):
    found = schedule(classes, 0, 12, False, Recipe())
    assert any(step.mirror for step in found.first + found.unsure) == folded


def test_the_first_pass_with_all_classes_decides_what_follows():
    found = schedule(10, 30, 12, True, Recipe())
    history = [{"confidence": 0.95}] * (len(found.first) - 1)
    assert found.steps(history) == found.first + found.unsure
    assert found.steps([*history, {"confidence": 0.89}]) == found.first + found.unsure
    assert found.steps([*history, {"confidence": 0.9}]) == found.first + found.sure
    # What comes later does not change the choice.
    assert found.steps([*history, {"confidence": 0.9}, {"confidence": 0.1}]) == found.first + found.sure


def test_fourier_crop_keeps_low_frequencies_and_the_centre():
    image = torch.zeros(1, 24, 24)
    axis = torch.arange(24) - 12.0
    image[0] = torch.exp(-(axis[:, None] - 2) ** 2 / 18 - (axis[None, :] + 4) ** 2 / 18)
    small = fourier_crop(image, 12)[0]
    half = torch.arange(12) - 6.0
    expected = 4 * torch.exp(-(2 * half[:, None] - 2) ** 2 / 18 - (2 * half[None, :] + 4) ** 2 / 18)
    torch.testing.assert_close(small, expected, atol=0.05, rtol=0)


def test_mask_sets_background_to_zero_mean_and_unit_deviation():
    images = 5 + 3 * torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(3))
    images[:, 12:20, 12:20] += 40
    mask = CircularMask(32, 10, 2)
    outside = mask.weights() == 0
    normalised = mask.normalise(images)
    assert float(normalised[:, outside].mean()) == pytest.approx(0, abs=0.05)
    assert float(normalised[:, outside].std()) == pytest.approx(1, abs=0.05)
