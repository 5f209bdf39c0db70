"""Simulated particles and micrographs: their truth, their statistics, and the files of a run."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch

from siamese2d_engine.cli.main import main
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import group_by_micrograph, read_coordinates
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.io.particles import ctf_parameters, read_particles
from siamese2d_engine.io.star import read_star
from siamese2d_engine.simulate.micrographs import (
    noise_generator,
    particle_box,
    plan_micrograph,
    project_particles,
    render_micrograph,
)
from siamese2d_engine.simulate.particles import (
    JUNK_KINDS,
    ParticleRenderer,
    make_volumes,
    plan_particles,
    simulate_particles,
)
from siamese2d_engine.simulate.projection import FourierVolume
from siamese2d_engine.simulate.stage import simulate_micrographs_to, simulate_particles_to

PIXEL, DIAMETER, SIZE = 8.0, 160.0, 256


@pytest.fixture(scope="module")
def volumes():
    return make_volumes(2, DIAMETER, PIXEL, seed=0)


def centroid(image):
    """Centre of mass (x, y) of what stands out in an image."""
    y, x = np.indices(image.shape)
    image = np.maximum(image - 0.03 * image.max(), 0)
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


def test_shifts_are_where_the_truth_says(volumes):
    truth = plan_particles(12, 2, max_shift=4.0, ctf=False, seed=1)
    images = ParticleRenderer(truth, volumes, 40, PIXEL, 0.1).clean(np.arange(12), with_ctf=False)
    # A protein's centre of mass is its origin, and projection keeps it.
    for image, shift in zip(images.numpy(), truth.shifts):
        np.testing.assert_allclose(centroid(image), 20 + shift, atol=0.15)
    assert np.abs(truth.shifts).max() > 2


@pytest.mark.parametrize("ctf", [True, False])
def test_signal_to_noise_is_as_asked(volumes, ctf):
    truth = plan_particles(200, 2, max_shift=2.0, ctf=ctf, seed=2)
    renderer = ParticleRenderer(truth, volumes, 32, PIXEL, 0.3)
    assert renderer.clean(np.arange(200)).var(dim=(1, 2)).mean().item() == pytest.approx(0.3, rel=1e-3)
    images = np.concatenate([chunk for _, chunk in renderer.chunks()])
    assert images.var() == pytest.approx(1.3, rel=0.05)


def test_particles_are_bright(volumes):
    data = simulate_particles(100, box=32, pixel_size=PIXEL, snr=0.5, max_shift=0.0, volumes=volumes, seed=3)
    mean = data.images.mean(axis=0)
    assert mean[14:19, 14:19].mean() > 0.5
    assert abs(mean[:2].mean()) < 0.1  # the background is at zero


def test_junk_and_species_have_their_shares():
    truth = plan_particles(1000, 3, max_shift=2.0, junk=0.25, seed=4)
    assert np.bincount(truth.species).tolist() == [250, 250, 250, 250]
    assert ((truth.species == 0) == (truth.junk >= 0)).all()
    assert set(truth.junk[truth.junk >= 0]) == set(range(len(JUNK_KINDS)))


def test_particles_of_one_micrograph_share_their_defocus():
    truth = plan_particles(250, 1, max_shift=0.0, seed=5)
    assert truth.micrographs[[0, 99, 100, 249]].tolist() == [0, 0, 1, 2]
    assert len(np.unique(truth.ctf.defocus_u)) == 3
    assert (truth.ctf.defocus_u >= truth.ctf.defocus_v).all() and (truth.ctf.defocus_v > 5000).all()


def test_the_same_seed_gives_the_same_images(volumes):
    settings = dict(box=32, pixel_size=PIXEL, volumes=volumes, junk=0.3)
    one, two, other = (simulate_particles(40, seed=seed, **settings).images for seed in (6, 6, 7))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).mean() > 0.5


@pytest.mark.parametrize("coloured", [False, True])
def test_white_noise_is_white(volumes, coloured):
    data = simulate_particles(60, box=64, pixel_size=3.0, volumes=volumes, snr=1e-6, coloured=coloured, seed=8)
    power = np.abs(np.fft.rfft2(data.images)) ** 2
    ratio = power[:, 1:4, 1:4].mean() / power[:, 20:28, 20:28].mean()
    assert ratio > 2 if coloured else ratio == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("index", [0, 3])
def test_particles_of_a_micrograph_are_apart_and_beside_the_junk(index):
    plan = plan_micrograph(index, 512, PIXEL, 60, 2, DIAMETER, seed=9)
    radius = DIAMETER / PIXEL / 2
    assert (plan.carbon is not None) == (index == 3)
    assert len(plan.positions) == 60
    assert plan.positions.min() >= radius and plan.positions.max() <= 511 - radius
    gaps = np.linalg.norm(plan.positions[:, None] - plan.positions, axis=2)[np.triu_indices(60, 1)]
    assert gaps.min() >= 0.9 * 2 * radius
    x, y = torch.from_numpy(plan.positions.T)
    assert all((blob.depth(x, y) > radius).all() for blob in plan.ice)
    if plan.carbon is not None:
        assert (plan.carbon.depth(x - 256, y - 256) > radius).all()


def test_particles_lie_at_their_coordinates(volumes):
    plan = plan_micrograph(0, SIZE, PIXEL, 8, 2, DIAMETER, seed=10)
    box = particle_box(DIAMETER, PIXEL)
    scene = project_particles(plan, [FourierVolume(v.density, PIXEL) for v in volumes], SIZE, box, PIXEL).numpy()
    crowd = np.linalg.norm(plan.positions[:, None] - plan.positions, axis=2) + 1e9 * np.eye(len(plan.positions))
    lonely = np.flatnonzero(
        (crowd.min(axis=1) > 24) & (plan.positions.min(axis=1) > 13) & (plan.positions.max(axis=1) < SIZE - 14)
    )
    assert len(lonely) >= 2
    for x, y in plan.positions[lonely]:
        left, top = int(round(x)) - 12, int(round(y)) - 12
        part = scene[top : top + 25, left : left + 25]
        np.testing.assert_allclose(centroid(part) + [left, top], [x, y], atol=0.4)


def test_recorded_particles_and_carbon_are_dark(volumes):
    plan = plan_micrograph(3, SIZE, PIXEL, 20, 2, DIAMETER, seed=11)
    transforms = [FourierVolume(v.density, PIXEL) for v in volumes]
    image = render_micrograph(plan, transforms, SIZE, PIXEL, DIAMETER, 0.5, noise_generator(11, 3)).numpy()
    assert np.isfinite(image).all() and image.std() > 3  # the gain is at least 5
    y, x = np.indices(image.shape)
    distance = np.min([np.hypot(x - a, y - b) for a, b in plan.positions], axis=0)
    beside_junk = plan.carbon.depth(torch.from_numpy(x) - SIZE / 2, torch.from_numpy(y) - SIZE / 2).numpy() > 20
    for blob in plan.ice:
        beside_junk &= blob.depth(torch.from_numpy(x), torch.from_numpy(y)).numpy() > 10
    empty = image[beside_junk & (distance > 15)].mean()
    assert image[distance < 4].mean() < empty - 0.3 * plan.gain
    on_carbon = plan.carbon.depth(torch.from_numpy(x) - SIZE / 2, torch.from_numpy(y) - SIZE / 2).numpy() < -10
    assert image[on_carbon].mean() < empty


MICROGRAPHS = dict(
    micrographs=3,
    size=SIZE,
    pixel_size=PIXEL,
    particles_per_micrograph=25,
    species=2,
    diameter=DIAMETER,
    snr=0.2,
    labels=20,
    volume_paths=[],
    seed=12,
)


@pytest.fixture(scope="module")
def micrograph_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "run"
    simulate_micrographs_to(out, **MICROGRAPHS)
    return out


def test_micrograph_files_fit_together(micrograph_run):
    micrographs = read_micrographs(micrograph_run / "micrographs.star")
    assert micrographs.names == ["simulated_001", "simulated_002", "simulated_003"]
    assert micrographs.pixel_sizes.tolist() == [PIXEL] * 3
    truth = group_by_micrograph(read_coordinates(micrograph_run / "truth.star"), micrographs)
    summary = json.loads((micrograph_run / "simulation.json").read_text())
    assert [len(rows) for rows in truth] == [entry["particles"] for entry in summary["micrographs"]]
    assert [entry["role"] for entry in summary["micrographs"]] == ["train", "train", "test"]
    assert set(pd.concat(truth)["siamese2dSpecies"]) == {1, 2} == {entry["number"] for entry in summary["species"]}
    assert len(read_star(micrograph_run / "test_micrographs.star")["micrographs"]) == 1
    plan = plan_micrograph(1, SIZE, PIXEL, 25, 2, DIAMETER, 12)
    np.testing.assert_allclose(truth[1][["rlnCoordinateX", "rlnCoordinateY"]], plan.positions, atol=1e-5)
    np.testing.assert_allclose(truth[1]["rlnAngleTilt"], np.degrees(plan.angles[:, 1]), atol=1e-5)


def test_labels_are_jittered_truth_of_training_micrographs(micrograph_run):
    micrographs = read_micrographs(micrograph_run / "micrographs.star")
    labels = group_by_micrograph(read_coordinates(micrograph_run / "training_coordinates.star"), micrographs)
    truth = group_by_micrograph(read_coordinates(micrograph_run / "truth.star"), micrographs)
    assert sum(map(len, labels)) == 20 and len(labels[2]) == 0
    columns = ["rlnCoordinateX", "rlnCoordinateY"]
    offsets = []
    for clicked, true in zip(labels[:2], truth):
        gaps = np.linalg.norm(clicked[columns].to_numpy()[:, None] - true[columns].to_numpy(), axis=2)
        offsets.extend(gaps.min(axis=1))
    assert 0.5 < np.sqrt(np.mean(np.square(offsets)) / 2) < 1.6 and max(offsets) < 5


def test_a_killed_run_goes_on_to_the_same_images(micrograph_run, tmp_path):
    out = tmp_path / "killed"
    simulate_micrographs_to(out, **MICROGRAPHS)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"status": "running"}))
    (out / "micrographs" / "simulated_002.mrc").unlink()
    (out / "truth.star").unlink()
    kept = (out / "micrographs" / "simulated_001.mrc").stat().st_mtime_ns
    simulate_micrographs_to(out, **MICROGRAPHS)
    assert (out / "micrographs" / "simulated_001.mrc").stat().st_mtime_ns == kept
    for name in ("simulated_001", "simulated_002", "simulated_003"):
        with mrcfile.open(out / "micrographs" / f"{name}.mrc") as one:
            with mrcfile.open(micrograph_run / "micrographs" / f"{name}.mrc") as two:
                np.testing.assert_array_equal(one.data, two.data)
    assert (out / "truth.star").exists()


def test_crowded_micrographs_hold_fewer_particles(tmp_path, capsys):
    simulate_micrographs_to(tmp_path / "run", **MICROGRAPHS | {"micrographs": 1, "particles_per_micrograph": 500})
    assert "of 500 particles." in capsys.readouterr().out


def test_particles_too_large_for_the_micrograph(tmp_path):
    with pytest.raises(InputError, match="do not fit.*--diameter"):
        simulate_micrographs_to(tmp_path / "run", **MICROGRAPHS | {"diameter": 1500.0})


PARTICLES = dict(
    particles=120,
    box=32,
    pixel_size=PIXEL,
    species=2,
    snr=0.2,
    max_shift=16.0,
    ctf=True,
    junk=0.1,
    coloured=True,
    volume_paths=[],
    seed=13,
)


def test_particle_files_fit_together(tmp_path):
    simulate_particles_to(tmp_path / "run", **PARTICLES)
    particles = read_particles(tmp_path / "run" / "particles.star")
    assert (len(particles), particles.box, particles.pixel_size) == (120, 32, PIXEL)
    expected = simulate_particles(120, box=32, pixel_size=PIXEL, species=2, snr=0.2, max_shift=16.0, junk=0.1, seed=13)
    np.testing.assert_array_equal(particles.images.read(np.arange(120)), expected.images)
    ctf = ctf_parameters(particles)
    np.testing.assert_allclose(ctf.defocus_u, expected.truth.ctf.defocus_u, atol=1e-5)
    np.testing.assert_allclose(ctf.astigmatism_angle, expected.truth.ctf.astigmatism_angle, atol=1e-7)
    assert (ctf.voltage == 300).all() and (ctf.cs == 2.7).all() and (ctf.amplitude_contrast == 0.1).all()


def test_the_truth_has_relions_origins(tmp_path):
    simulate_particles_to(tmp_path / "run", **PARTICLES)
    truth = read_star(tmp_path / "run" / "truth.star")["particles"]
    plan = plan_particles(120, 2, 16.0 / PIXEL, 0.1, True, 13)
    origins = truth[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(float)
    np.testing.assert_allclose(origins, -plan.shifts * PIXEL, atol=1e-5)
    assert truth["siamese2dSpecies"].tolist() == plan.species.tolist()
    assert (truth.loc[truth["siamese2dSpecies"] == 0, "siamese2dJunk"] != "particle").all()
    assert "rlnAngleRot" not in read_star(tmp_path / "run" / "particles.star")["particles"]


def test_without_ctf_there_are_no_ctf_columns(tmp_path):
    simulate_particles_to(tmp_path / "run", **PARTICLES | {"ctf": False, "particles": 20})
    assert ctf_parameters(read_particles(tmp_path / "run" / "particles.star")) is None


def test_a_map_can_be_projected(tmp_path, volumes):
    for number, volume in enumerate(volumes):
        with mrcfile.new(tmp_path / f"map{number}.mrc") as file:
            file.set_data(volume.density)
            file.voxel_size = PIXEL
    maps = [tmp_path / "map0.mrc", tmp_path / "map1.mrc"]
    simulate_particles_to(tmp_path / "run", **PARTICLES | {"volume_paths": maps, "particles": 20, "junk": 0.0})
    truth = read_star(tmp_path / "run" / "truth.star")["particles"]
    assert sorted(set(truth["siamese2dSpecies"])) == [1, 2]
    summary = json.loads((tmp_path / "run" / "simulation.json").read_text())
    assert [entry["name"] for entry in summary["species"]] == ["map0", "map1"]


def test_a_box_that_is_too_small(tmp_path):
    with pytest.raises(InputError, match="--box 8"):
        simulate_particles_to(tmp_path / "run", **PARTICLES | {"box": 8})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["micrographs", "particles"])
def test_help_is_grouped_and_shows_defaults(kind, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["simulate", kind, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "output:" in text and "computing:" in text and "particles:" in text
    assert "(default: 0.1)" in text and "default: None" not in text


def test_the_command_line_makes_the_same_particles(tmp_path, capsys):
    command = [
        "simulate",
        "particles",
        "--out",
        str(tmp_path / "run"),
        "--particles",
        "120",
        "--box",
        "32",
        "--pixel-size",
    ]
    command += [
        "8",
        "--species",
        "2",
        "--snr",
        "0.2",
        "--max-shift",
        "16",
        "--junk",
        "0.1",
        "--seed",
        "13",
        "--threads",
        "1",
    ]
    assert main(command) == 0
    simulate_particles_to(tmp_path / "direct", **PARTICLES)
    images = [
        read_particles(tmp_path / name / "particles.star").images.read(np.arange(120)) for name in ("run", "direct")
    ]
    np.testing.assert_array_equal(*images)


def test_a_missing_map_is_one_message(tmp_path, capsys):
    command = ["simulate", "particles", "--out", str(tmp_path / "run"), "--volume", str(tmp_path / "none.mrc")]
    assert main(command) == 2
    assert "none.mrc: the file does not exist" in capsys.readouterr().err
