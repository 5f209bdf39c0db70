"""The stage and its command: outputs, downsampling, contamination, bad micrographs, resuming."""

import json
import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.io.star import read_star, write_star
from siamese2d_engine.normalize import parallel

MU, SIGMA = np.array([4.0, 10.0]), np.array([1.5, 1.0])
GAINS = {"a": 0.7, "b": 1.0, "c": 1.6}


def simulate(seed, alpha=1.0, rho=0.8, offset=0.0, shape=(240, 300)):
    """A micrograph with a dark area in its lower part; what is above has mean ``10 alpha`` and deviation ``alpha``."""
    z = np.zeros(shape, dtype=int)
    z[: round(rho * shape[0])] = 1
    noise = np.random.default_rng(seed).normal(size=shape)
    return (alpha * (MU[z] + SIGMA[z] * noise) + offset).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three micrographs that follow one mixture, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, gain) in enumerate(GAINS.items()):
        write_mrc(f"mics/{name}.mrc", simulate(seed, gain), 2.0)
    return tmp_path


def normalize(*arguments, micrographs=("mics",), out="out"):
    return main(["normalize", "--micrographs", *micrographs, "--out", out, "--threads", "2", *arguments])


def result(out="out"):
    return json.loads(Path(out, "normalization.json").read_text())


def test_joint_method_finds_gains_and_writes_what_is_documented(folder):
    assert normalize() == 0
    content = result()
    shared = content["shared"]
    scale = shared["sigma"][1] / SIGMA[1]
    np.testing.assert_allclose(shared["mu"], MU * scale, rtol=0.02)
    np.testing.assert_allclose(shared["sigma"], SIGMA * scale, rtol=0.02)
    assert shared["rho"] == pytest.approx(0.8, abs=0.01)
    assert shared["starts"] and np.isfinite(shared["log_likelihood"])
    for record in content["micrographs"]:
        assert (record["status"], record["fit"], record["component"]) == ("finished", "shared", 1)
        assert record["alpha"] * scale == pytest.approx(GAINS[record["name"]], rel=0.01)
        for when in ("before", "after"):
            assert len(record[when]["edges"]) == len(record[when]["counts"]) + 1
        before = mrcfile.read(f"mics/{record['name']}.mrc")
        after = mrcfile.read(f"out/micrographs/{record['name']}.mrc")
        expected = (before / record["alpha"] - record["mu"][1]) / record["sigma"][1]
        np.testing.assert_allclose(after, expected, atol=1e-4)
        assert after[:180].mean() == pytest.approx(0, abs=0.05)
        assert after[:180].std() == pytest.approx(1, rel=0.02)
    written = read_micrographs("out/micrographs.star")
    assert written.names == ["a", "b", "c"]
    np.testing.assert_allclose(written.pixel_sizes, 2.0)


@pytest.mark.parametrize("method", ["each", "affine"])
def test_each_micrograph_alone(folder, method):
    write_mrc("mics/d.mrc", simulate(9, 1.3, offset=500.0), 2.0)
    assert normalize("--method", method) == 0
    assert result()["shared"] is None
    for name in "abcd":
        after = mrcfile.read(f"out/micrographs/{name}.mrc")
        area = after[:180] if method == "each" else after
        assert area.mean() == pytest.approx(0, abs=0.03)
        assert area.std() == pytest.approx(1, rel=0.03)


def test_micrograph_with_an_offset_leaves_the_joint_fit(folder, capsys):
    write_mrc("mics/d.mrc", simulate(9, 1.3, offset=500.0), 2.0)
    assert normalize() == 0
    records = {record["name"]: record for record in result()["micrographs"]}
    assert [records[name]["fit"] for name in "abcd"] == ["shared", "shared", "shared", "own"]
    assert "does not follow the joint fit" in records["d"]["message"]
    assert "1 of 4 micrographs do not follow" in capsys.readouterr().out
    after = mrcfile.read("out/micrographs/d.mrc")
    assert after[:180].std() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("factor, shape, pixel_size", [
    ("2", (120, 150), 4.0), ("2.5", (96, 120), 5.0), ("7", (34, 42), 14.0),
])
def test_downsampling_has_the_right_pixel_size(folder, factor, shape, pixel_size):
    assert normalize("--downsample", factor) == 0
    with mrcfile.open("out/micrographs/b.mrc") as mrc:
        assert mrc.data.shape == shape
        assert mrc.voxel_size.x == pytest.approx(pixel_size)
        assert np.median(np.abs(mrc.data[: int(0.7 * shape[0])])) < 1.2
    np.testing.assert_allclose(read_micrographs("out/micrographs.star").pixel_sizes, pixel_size)


def test_columns_and_optics_are_carried_and_sizes_may_differ(folder):
    write_mrc("mics/d.mrc", simulate(9, 1.1, shape=(300, 200)), 2.0)
    table = read_micrographs("mics").table
    optics = table.iloc[:1].assign(rlnOpticsGroup=1, rlnOpticsGroupName="g", rlnVoltage=300.0,
                                   rlnMicrographPixelSize=2.0)
    table = table.assign(rlnOpticsGroup=1, rlnDefocusU=[1e4, 2e4, 3e4, 4e4], siamese2dItemId=[11, 12, 13, 14])
    write_star("in.star", {"optics": optics.drop(columns="rlnMicrographName"), "micrographs": table})
    assert normalize("--downsample", "2", micrographs=["in.star"]) == 0
    blocks = read_star("out/micrographs.star")
    assert blocks["optics"]["rlnVoltage"].tolist() == [300]
    assert blocks["micrographs"]["siamese2dItemId"].tolist() == [11, 12, 13, 14]
    assert blocks["micrographs"]["rlnDefocusU"].tolist() == [1e4, 2e4, 3e4, 4e4]
    assert mrcfile.read("out/micrographs/d.mrc").shape == (150, 100)


def spoil(kind):
    """One more micrograph that can't be normalized."""
    image = simulate(5)
    path = "mics/bad.mrc"
    if kind == "constant":
        write_mrc(path, np.full_like(image, 3.0), 2.0)
    elif kind == "saturated":
        write_mrc(path, np.where(np.arange(image.size).reshape(image.shape) > 50, 255.0, image), 2.0)
    elif kind == "nan":
        image[3, 4] = np.nan
        write_mrc(path, image, 2.0)
    elif kind == "truncated":
        write_mrc(path, image, 2.0)
        os.truncate(path, 5000)
    elif kind == "text":
        Path(path).write_text("not an image")
    else:
        write_mrc(path, image[:40, :40], 2.0)


@pytest.mark.parametrize("kind", ["constant", "saturated", "nan", "truncated", "text", "tiny"])
@pytest.mark.filterwarnings("ignore:Data array contains NaN")
def test_bad_micrograph_is_reported_and_skipped(folder, kind, capsys):
    spoil(kind)
    assert normalize("--pixel-size", "2", "--downsample", "2") == 0
    record = {r["name"]: r for r in result()["micrographs"]}["bad"]
    assert record["status"] == "failed"
    assert "mics/bad.mrc" in record["message"]
    assert "warning: mics/bad.mrc" in capsys.readouterr().out
    assert read_micrographs("out/micrographs.star").names == ["a", "b", "c"]
    assert not Path("out/micrographs/bad.mrc").exists()


def test_mended_micrograph_is_tried_again(folder):
    spoil("truncated")
    assert normalize("--pixel-size", "2") == 0
    before = Path("out/micrographs/a.mrc").stat().st_mtime_ns
    write_mrc("mics/bad.mrc", simulate(5), 2.0)
    # The folder's own time is part of the run's identity.
    os.utime("mics", ns=(0, json.loads(Path("out/run.json").read_text())["inputs"][0]["modified"]))
    assert normalize("--pixel-size", "2") == 0
    assert read_micrographs("out/micrographs.star").names == ["a", "b", "bad", "c"]
    assert Path("out/micrographs/a.mrc").stat().st_mtime_ns == before


def test_all_bad_is_an_error(folder, capsys):
    for name in GAINS:
        write_mrc(f"mics/{name}.mrc", np.ones((100, 100)), 2.0)
    for method in ("joint", "each"):
        assert normalize("--method", method, out=method) == 2
        assert "mics/a.mrc: all pixels have the value 1" in capsys.readouterr().err
        assert not Path(method, "micrographs.star").exists()


def test_same_stem_twice_and_no_images_are_errors(folder, capsys):
    write_mrc("other/a.mrc", simulate(0), 2.0)
    assert normalize(micrographs=["mics", "other"]) == 2
    assert "more than once" in capsys.readouterr().err
    Path("empty").mkdir()
    assert normalize(micrographs=["empty"], out="out2") == 2
    assert "no images" in capsys.readouterr().err


def test_enlarging_is_an_error(folder, capsys):
    assert normalize("--downsample", "0.5") == 2
    assert "1 or more" in capsys.readouterr().err


def test_later_micrographs_get_the_grey_scale_of_the_first(folder):
    assert normalize() == 0
    write_mrc("later/d.mrc", simulate(7, 2.5), 2.0)
    write_mrc("later/a.mrc", mrcfile.read("mics/a.mrc"), 2.0)
    assert normalize("--shared", "out/normalization.json", micrographs=["later"], out="more") == 0
    assert result("more")["shared"] == result()["shared"]
    # The same micrograph comes out the same, whichever others it came with.
    np.testing.assert_array_equal(mrcfile.read("more/micrographs/a.mrc"), mrcfile.read("out/micrographs/a.mrc"))
    record = result("more")["micrographs"][1]
    assert (record["name"], record["fit"]) == ("d", "shared")
    assert record["alpha"] / result()["micrographs"][0]["alpha"] == pytest.approx(2.5 / GAINS["a"], rel=0.02)
    upper = mrcfile.read("more/micrographs/d.mrc")[:180]
    assert upper.mean() == pytest.approx(0, abs=0.02) and upper.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("content", ['{"method": "each", "shared": null}', "{}", "[]"])
def test_file_without_a_mixture_to_share_is_an_error(folder, capsys, content):
    Path("other.json").write_text(content)
    assert normalize("--shared", "other.json") == 2
    assert "other.json: there is no mixture" in capsys.readouterr().err
    assert normalize("--shared", "other.json", "--method", "each", out="each") == 2
    assert "--shared is for --method joint" in capsys.readouterr().err


def test_bad_pixels_are_mended_and_told(folder):
    image = simulate(1)
    image[100, 100] = 1e4
    image[:, :30] = 0
    write_mrc("mics/b.mrc", image, 2.0)
    assert normalize() == 0
    record = result()["micrographs"][1]
    assert "10.0 % of the pixels are padding" in record["message"]
    assert "1 dead or hot pixels" in record["message"]
    assert abs(mrcfile.read("out/micrographs/b.mrc")[100, 100]) < 6


def test_killed_run_continues_to_the_same_result(folder):
    assert normalize("--downsample", "2") == 0
    outputs = [*sorted(Path("out/micrographs").iterdir()), Path("out/normalization.json")]
    whole = {path: pixels(path) for path in outputs}
    record = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    for lost in ("micrographs/a.mrc", "records/b.json", "normalization.json", "micrographs.star"):
        Path("out", lost).unlink()
    kept = Path("out/micrographs/c.mrc").stat().st_mtime_ns
    assert normalize("--downsample", "2") == 0
    assert {path: pixels(path) for path in outputs} == whole
    assert Path("out/micrographs/c.mrc").stat().st_mtime_ns == kept
    assert read_micrographs("out/micrographs.star").names == ["a", "b", "c"]


def pixels(path):
    """Content without the time stamp in an MRC header."""
    return path.read_bytes()[1024 if path.suffix == ".mrc" else 0 :]


def test_resumed_run_uses_the_joint_fit_of_the_first_start(folder):
    assert normalize() == 0
    first = mrcfile.read("out/micrographs/a.mrc")
    record = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    write_mrc("mics/b.mrc", np.ones((100, 100)), 2.0)
    os.utime("mics", ns=(0, record["inputs"][0]["modified"]))
    for name in ("a.mrc", "b.mrc"):
        Path("out/micrographs", name).unlink()
    assert normalize() == 0
    np.testing.assert_array_equal(mrcfile.read("out/micrographs/a.mrc"), first)
    assert read_micrographs("out/micrographs.star").names == ["a", "c"]


def test_same_pixels_for_any_number_of_threads(folder):
    assert normalize() == 0
    assert main(["normalize", "--micrographs", "mics", "--out", "one", "--threads", "1"]) == 0
    assert result("out") == result("one")


def test_fewer_threads_work_on_large_micrographs(tmp_path, monkeypatch):
    paths = [tmp_path / "broken.mrc", tmp_path / "good.mrc"]
    paths[0].write_bytes(b"broken")
    write_mrc(paths[1], np.zeros((20, 50)), 1.0)
    monkeypatch.setattr(parallel, "PIXELS_AT_ONCE", 3500)
    assert [parallel.bounded_threads(n, paths) for n in (1, 2, 8)] == [1, 2, 3]
    monkeypatch.setattr(parallel, "PIXELS_AT_ONCE", 10)
    assert parallel.bounded_threads(8, paths) == 1
    assert parallel.bounded_threads(8, paths[:1]) == 8


def test_contamination_does_not_drive_the_fit(folder):
    """A third of the image under ice and carbon, and glowing specks: the rest still has mean 0 and deviation 1."""
    image = simulate(3, rho=1.0)
    clean = np.ones(image.shape, dtype=bool)
    clean[:, 200:] = False
    image[:, 200:260] -= 6
    image[:, 260:] = image[:, 260:] * 0.5 - 40
    image[100:110, 20:30] += 300
    clean[100:110, 20:30] = False
    for name in GAINS:
        write_mrc(f"mics/{name}.mrc", image, 2.0)
    for method in ("joint", "each"):
        assert normalize("--method", method, out=method) == 0
        after = mrcfile.read(f"{method}/micrographs/a.mrc")
        assert after[clean].mean() == pytest.approx(0, abs=0.1)
        assert after[clean].std() == pytest.approx(1, rel=0.05)


def test_fitted_parameters_are_the_same_with_and_without_carbon(folder):
    """A quarter of the image under carbon of twice the contrast: location and width of the ice stay."""
    clean = simulate(5, rho=1.0)
    dirty = clean.copy()
    dirty[:, 225:] = 0.6 * dirty.mean() + 2 * (dirty[:, 225:] - dirty.mean())
    write_mrc("carbon/clean.mrc", clean, 2.0)
    write_mrc("carbon/dirty.mrc", dirty, 2.0)
    assert normalize("--method", "each", micrographs=["carbon"], out="fits") == 0
    fits = [(m["mu"][m["component"]], m["sigma"][m["component"]]) for m in result("fits")["micrographs"]]
    (location, width), (dirty_location, dirty_width) = fits
    assert abs(dirty_location - location) < 0.05 * width
    assert dirty_width == pytest.approx(width, rel=0.05)
    assert dirty.std() > 1.5 * clean.std()


def test_real_contamination_does_not_drive_the_fit(tmp_path):
    data = os.environ.get("SIAMESE2D_TEST_DATA")
    if not data:
        pytest.skip("SIAMESE2D_TEST_DATA is not set: the real contaminated micrograph is not there")
    source = Path(data, "contamination")
    out = str(tmp_path / "out")
    assert normalize("--pixel-size", "1", micrographs=[str(source / "micrograph.mrc")], out=out) == 0
    after = mrcfile.read(tmp_path / "out/micrographs/micrograph.mrc")
    dirty = mrcfile.read(source / "contamination_mask.mrc") > 0.5
    # Local noise: the image is brighter towards its middle, which is no noise.
    noise = (after[:, 1:] - after[:, :-1]) / np.sqrt(2)
    assert abs(np.median(after[~dirty])) < 0.5
    assert 0.5 < noise[~dirty[:, 1:]].std() < 1.2
    assert np.median(after[dirty]) < -3
