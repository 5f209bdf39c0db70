"""RELION's own programs take what `export` writes, and average its classes with the exported poses to our averages."""

import shutil
import subprocess

import mrcfile
import numpy as np
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.io.star import read_star, write_star

BOX, PIXEL, DIAMETER = 48, 5.0, 180
PARTICLES, CLASSES = 160, 2

WRONG = {
    "psi": {"rlnAnglePsi": -1},
    "origins": {"rlnOriginXAngst": -1, "rlnOriginYAngst": -1},
}


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"RELION's {program} is not on the path")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Simulated particles with CTF, classified with mirrored members and exported for RELION.

    Without fine classes, since RELION decides classes anew: it compares particles with averages and groups nothing.
    """
    folder = tmp_path_factory.mktemp("relion")
    for command in (
        ["simulate", "particles", "--out", folder / "simulated", "--particles", PARTICLES, "--box", BOX, "--pixel-size",
         PIXEL, "--snr", 0.5, "--noise", "white", "--species", 1, "--seed", 3],
        ["classify", "--particles", folder / "simulated" / "particles.star", "--out", folder / "classes", "--classes",
         CLASSES, "--fine-classes", 0, "--device", "cpu"],
        ["export", "--particles", folder / "classes" / "particles.star", "--format", "relion", "--out",
         folder / "relion"],
    ):
        threads = [] if command[0] == "export" else ["--threads", 1]
        assert main([str(part) for part in [*command, *threads]]) == 0
    return folder / "relion"


def relion(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def write_poses(path, exported, signs):
    """The exported table with these columns times their sign; returns the particles."""
    blocks = read_star(exported / "particles.star")
    for column, sign in signs.items():
        blocks["particles"][column] *= sign
    write_star(path, blocks)
    return blocks["particles"]


def central(images):
    """Pixels within a circle, with mean 0."""
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    pixels = images[..., np.hypot(x, y) < DIAMETER / PIXEL / 2]
    return pixels - pixels.mean(-1, keepdims=True)


def correlation(first, second):
    """Of the central pixels of two images."""
    first, second = central(first), central(second)
    return (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())


def with_power_of(images, others):
    """Images with the mean power that others have on each ring: programs weight the rings by their own noise models."""
    kx, ky = np.fft.rfftfreq(BOX, 1 / BOX), np.fft.fftfreq(BOX, 1 / BOX)
    rings = np.rint(np.hypot(ky[:, None], kx)).astype(int)
    scaled = []
    for image, other in zip(images, others):
        spectrum = np.fft.rfft2(image)
        own, wanted = (np.bincount(rings.ravel(), np.abs(part.ravel()) ** 2)
                       for part in (spectrum, np.fft.rfft2(other)))
        ratio = np.sqrt(np.divide(wanted, own, out=np.zeros_like(own), where=own > 0))
        scaled.append(np.fft.irfft2(spectrum * ratio[rings], s=image.shape))
    return np.array(scaled)


@pytest.mark.parametrize("wrong", [{}, *WRONG.values()], ids=["right", *WRONG])
@needs("relion_stack_create")
def test_particles_that_relion_moves_average_to_the_classes(exported, tmp_path, wrong):
    before = write_poses(tmp_path / "poses.star", exported, wrong)
    relion("relion_stack_create", "--i", tmp_path / "poses.star", "--o", tmp_path / "moved", "--apply_transformation")
    moved, averages = mrcfile.read(tmp_path / "moved.mrcs"), mrcfile.read(exported / "classes.mrcs")
    numbers = before["rlnClassNumber"].to_numpy()
    # As many again for the mirrored members.
    assert set(numbers) == set(range(1, 2 * CLASSES + 1)) and len(moved) == len(numbers) == PARTICLES
    found = [correlation(moved[numbers == number].mean(axis=0), averages[number - 1]) for number in set(numbers)]
    assert np.mean(found) < 0.95 if wrong else min(found) > 0.95


@pytest.mark.parametrize("wrong", [{}, *WRONG.values()], ids=["right", *WRONG])
@needs("relion_refine")
def test_relion_refine_finds_the_exported_classes(exported, tmp_path, wrong):
    """Poses are kept as exported; it corrects for the CTF, and decides the classes anew."""
    before = write_poses(tmp_path / "poses.star", exported, wrong)
    relion("relion_refine", "--i", tmp_path / "poses.star", "--ref", exported / "classes.star", "--K", 2 * CLASSES,
           "--o", tmp_path / "run", "--iter", 1, "--skip_align", "--skip_rotate", "--ctf", "--norm", "--scale",
           "--zero_mask", "--particle_diameter", DIAMETER, "--tau2_fudge", 2, "--random_seed", 1)
    after = read_star(tmp_path / "run_it001_data.star")["particles"]
    assert after["rlnImageName"].tolist() == before["rlnImageName"].tolist()
    poses = ["rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]
    np.testing.assert_allclose(after[poses], before[poses], atol=1e-4)
    kept = (after["rlnClassNumber"] == before["rlnClassNumber"]).mean()
    averages = mrcfile.read(exported / "classes.mrcs")
    made = with_power_of(mrcfile.read(tmp_path / "run_it001_classes.mrcs"), averages)
    found = [correlation(*pair) for pair in zip(made, averages)]
    if wrong:
        assert kept < 0.7 and np.mean(found) < 0.95
    else:
        assert kept > 0.95 and min(found) > 0.95
