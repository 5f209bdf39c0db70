"""A disk that fills up in the middle of a stage."""

import errno

import numpy as np
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.io import images
from siamese2d_engine.io.images import read_image, write_mrc

NAMES = ("a", "b", "c")


@pytest.fixture
def micrographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_mrc(tmp_path / "in" / f"{name}.mrc", rng.normal(100, 10, (64, 64)), 2.0)
    return tmp_path / "in"


def command(folder, out):
    return ["normalize", "--micrographs", str(folder), "--method", "affine", "--threads", "1", "--out", str(out)]


def test_full_disk_stops_with_one_message_and_the_same_command_goes_on(micrographs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    real = images.mrcfile.new

    def new(path, *args, **kwargs):
        if str(path).endswith("b.mrc"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(images.mrcfile, "new", new)
    assert main(command(micrographs, out)) == 2
    error = capsys.readouterr().err
    assert "the disk is full" in error and "Traceback" not in error
    assert not (out / "micrographs.star").exists()
    assert not (out / "micrographs" / "b.mrc").exists() and not list(out.rglob(".partial-*"))

    monkeypatch.setattr(images.mrcfile, "new", real)
    assert main(command(micrographs, out)) == 0
    assert [read_image(out / "micrographs" / f"{name}.mrc").shape for name in NAMES] == [(64, 64)] * 3
