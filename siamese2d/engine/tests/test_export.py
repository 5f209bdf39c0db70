"""Exports to RELION and cryoSPARC: what was written is averaged by code that knows only the other program's
convention."""

import mrcfile
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from siamese2d_engine.cli.main import main
from siamese2d_engine.export.mirrors import mirror, split_mirrored
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.io.star import read_star, write_star

# Odd, so that the centre that scipy turns images about is the centre of the box.
BOX, PIXEL, PARTICLES = 49, 2.5, 60
BLOBS = {1: [(0, 0, 4, 1.0), (9, 2, 2, 1.5), (-4, 10, 3, 0.8)], 2: [(-3, 0, 5, 1.0), (6, -9, 2, 1.4), (8, 8, 2, 0.9)]}


def template(number):
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    return sum(h * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * w**2)) for bx, by, w, h in BLOBS[number])


def particle(number, psi, origin, flip):
    """A particle that psi, origin (pixels) and flip align to its class: its value at x is the template's at
    F R (x + o)."""
    y, x = np.mgrid[:BOX, :BOX] - float(BOX // 2)
    x, y = x + origin[0], y + origin[1]
    c, s = np.cos(np.radians(psi)), np.sin(np.radians(psi))
    tx, ty = c * x - s * y, s * x + c * y
    return ndimage.map_coordinates(template(number), [ty + BOX // 2, (-tx if flip else tx) + BOX // 2], order=3)


OPTICS = pd.DataFrame({
    "rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["north", "south"], "rlnVoltage": [300.0, 200.0],
    "rlnSphericalAberration": [2.7, 2.0], "rlnAmplitudeContrast": [0.1, 0.07], "rlnImagePixelSize": [PIXEL, PIXEL],
    "rlnImageSize": [BOX, BOX], "rlnImageDimensionality": [2, 2], "rlnBeamTiltX": [0.12, -0.3],
    "rlnBeamTiltY": [0.0, 0.25], "rlnOddZernike": ["[0,0.5]", "[0.1,0]"]})


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """What classify would have written: particles of two classes, every third mirrored, with columns of other
    programs."""
    folder = tmp_path_factory.mktemp("classified")
    rng = np.random.default_rng(5)
    numbers, flips = rng.integers(1, 3, PARTICLES), (np.arange(PARTICLES) % 3 == 0).astype(int)
    psi, origins = rng.uniform(-180, 180, PARTICLES), rng.uniform(-5, 5, (PARTICLES, 2))
    images = [particle(*row) for row in zip(numbers, psi, origins, flips)]
    write_mrc(folder / "stack.mrcs", np.array(images) + rng.normal(0, 0.15, (PARTICLES, BOX, BOX)), PIXEL)
    table = pd.DataFrame({
        "rlnImageName": [f"{place:06d}@stack.mrcs" for place in range(1, PARTICLES + 1)],
        "rlnOpticsGroup": rng.integers(1, 3, PARTICLES), "rlnDefocusU": rng.uniform(8000, 20000, PARTICLES),
        "rlnDefocusV": rng.uniform(8000, 20000, PARTICLES), "rlnDefocusAngle": rng.uniform(-90, 90, PARTICLES),
        "rlnPhaseShift": 90.0, "rlnRandomSubset": rng.integers(1, 3, PARTICLES), "rlnMicrographName": "mics/a b.mrc",
        "rlnCoordinateX": rng.uniform(50, 900, PARTICLES), "rlnCoordinateY": rng.uniform(50, 600, PARTICLES),
        "rlnClassNumber": numbers, "rlnAnglePsi": psi, "rlnOriginXAngst": origins[:, 0] * PIXEL,
        "rlnOriginYAngst": origins[:, 1] * PIXEL, "rlnIsFlip": flips,
        "rlnMaxValueProbDistribution": rng.random(PARTICLES),
        "rlnHelicalTubeID": rng.integers(1, 9, PARTICLES), "labNote": ["it's ok", "x"] * (PARTICLES // 2),
        "siamese2dItemId": np.arange(PARTICLES) * 3 + 7})
    write_star(folder / "particles.star", {"optics": OPTICS, "particles": table})
    write_mrc(folder / "classes.mrcs", np.array([template(1), template(2)]), PIXEL)
    write_star(folder / "classes.star", {"classes": pd.DataFrame({
        "rlnReferenceImage": [f"{number:06d}@{folder}/classes.mrcs" for number in (1, 2)], "rlnClassNumber": [1, 2],
        "rlnEstimatedResolution": [8.5, 9.5]})})
    return folder


@pytest.fixture(scope="module")
def exported(classified):
    """Folder of each format."""
    for program in ("relion", "cryosparc"):
        assert main(["export", "--particles", str(classified / "particles.star"), "--format", program,
                     "--out", str(classified / program)]) == 0
    return classified


def correlation(first, second):
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    inside = x**2 + y**2 < (BOX // 2 - 5) ** 2
    return np.corrcoef(first[inside], second[inside])[0, 1]


def relion_average(images, psi, x, y):
    """RELION: shift the image by the origin, then turn its content by psi, x towards y."""
    moved = [ndimage.shift(image, (b, a), order=3) for image, a, b in zip(images, x, y)]
    # scipy turns x away from y.
    return np.mean([ndimage.rotate(image, -angle, reshape=False, order=3) for image, angle in zip(moved, psi)], axis=0)


def cryosparc_average(images, pose, shift):
    """cryoSPARC: an image shows its class turned by +pose as scipy turns, then shifted by -shift; undo that."""
    moved = [ndimage.shift(image, (y, x), order=3) for image, (x, y) in zip(images, shift)]
    return np.mean([ndimage.rotate(image, -np.degrees(angle), reshape=False, order=3)
                    for image, angle in zip(moved, pose)], axis=0)


def test_relion_averages_of_the_exported_classes_are_the_classes(exported):
    blocks = read_star(exported / "relion" / "particles.star")
    table, stack = blocks["particles"], mrcfile.read(exported / "stack.mrcs")
    averages = mrcfile.read(exported / "relion" / "classes.mrcs")
    classes = read_star(exported / "relion" / "classes.star")
    assert "rlnIsFlip" not in table and sorted(table["rlnClassNumber"].unique()) == [1, 2, 3, 4]
    assert classes["model_classes"]["siamese2dMirrorOf"].tolist() == [0, 0, 1, 2]
    truth = {1: template(1), 2: template(2), 3: template(1)[:, ::-1], 4: template(2)[:, ::-1]}
    for number, rows in table.groupby("rlnClassNumber"):
        images = stack[[int(name.split("@")[0]) - 1 for name in rows["rlnImageName"]]]
        psi, x, y = rows["rlnAnglePsi"], rows["rlnOriginXAngst"] / PIXEL, rows["rlnOriginYAngst"] / PIXEL
        assert correlation(relion_average(images, psi, x, y), truth[number]) > 0.98
        assert correlation(averages[number - 1], truth[number]) > 0.999
        for wrong in ((-psi, x, y), (psi, -x, -y), (psi, y, x)):
            assert correlation(relion_average(images, *wrong), truth[number]) < 0.95


def test_cryosparc_averages_of_the_exported_classes_are_the_classes(exported):
    rows = np.load(exported / "cryosparc" / "particles.cs", allow_pickle=False)
    templates = np.load(exported / "cryosparc" / "templates.cs", allow_pickle=False)
    stack, averages = mrcfile.read(exported / "stack.mrcs"), mrcfile.read(exported / "cryosparc" / "classes.mrcs")
    assert templates["blob/idx"].tolist() == [0, 1, 2, 3] and templates["blob/res_A"].tolist() == [8.5, 9.5, 8.5, 9.5]
    truth = [template(1), template(2), template(1)[:, ::-1], template(2)[:, ::-1]]
    for number in range(4):
        some = rows[rows["alignments2D/class"] == number]
        images, pose, shift = stack[some["blob/idx"]], some["alignments2D/pose"], some["alignments2D/shift"]
        assert np.allclose(some["alignments2D/psize_A"], PIXEL)
        assert correlation(cryosparc_average(images, pose, shift), truth[number]) > 0.98
        assert correlation(averages[number], truth[number]) > 0.999
        for wrong in ((-pose, shift), (pose, -shift), (pose, shift[:, ::-1])):
            assert correlation(cryosparc_average(images, *wrong), truth[number]) < 0.95


def test_relion_export_keeps_every_column_and_optics_group(exported):
    before, after = read_star(exported / "particles.star"), read_star(exported / "relion" / "particles.star")
    pd.testing.assert_frame_equal(after["optics"], before["optics"])
    kept = [column for column in before["particles"] if column not in ("rlnIsFlip", "rlnClassNumber", "rlnImageName")]
    pd.testing.assert_frame_equal(after["particles"][kept], before["particles"][kept])
    flips = before["particles"]["rlnIsFlip"] == 1
    assert (after["particles"]["siamese2dMirrorOf"] == before["particles"]["rlnClassNumber"].where(flips, 0)).all()


def test_relion_cryosparc_relion_loses_nothing(exported):
    """All that the exported .cs file holds, read again by the engine, is what the STAR export holds."""
    star = read_particles(exported / "relion" / "particles.star")
    back = read_particles(exported / "cryosparc" / "particles.cs")
    pd.testing.assert_frame_equal(back.optics[star.optics.columns], star.optics, check_dtype=False, rtol=1e-6)
    text = [column for column in star.table if star.table[column].dtype.kind == "O"]
    assert set(text) == {"rlnImageName", "rlnMicrographName", "labNote"}
    assert (back.table[text[1:]] == star.table[text[1:]]).all(axis=None)
    numbers = [column for column in star.table if column not in text]
    # Single precision, of angles in radians.
    np.testing.assert_allclose(back.table[numbers], star.table[numbers], rtol=1e-6, atol=2e-5)
    np.testing.assert_array_equal(back.images.read(range(PARTICLES)), star.images.read(range(PARTICLES)))


def test_result_group_names_the_slots(exported):
    lines = (exported / "cryosparc" / "particles.csg").read_text().splitlines()
    assert "  type: particle" in lines and "    type: particle.alignments2D" in lines
    assert lines.count("    metafile: '>particles.cs'") == lines.count(f"    num_items: {PARTICLES}") == 4
    assert not any("relion" in line for line in lines)


def test_exports_without_classes_keep_what_there_is(classified, tmp_path):
    blocks = read_star(classified / "particles.star")
    pose = ["rlnClassNumber", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnIsFlip"]
    table = blocks["particles"].drop(columns=pose).assign(rlnImageName=blocks["particles"]["rlnImageName"].str.replace(
        "stack", f"{classified}/stack"))
    write_star(tmp_path / "plain.star", {"optics": blocks["optics"], "particles": table})
    for program, name in (("relion", "particles.star"), ("cryosparc", "particles.cs")):
        assert main(["export", "--particles", str(tmp_path / "plain.star"), "--format", program,
                     "--out", str(tmp_path / program)]) == 0
        assert len(read_particles(tmp_path / program / name)) == PARTICLES
        assert not (tmp_path / program / "classes.mrcs").exists()


def test_classes_of_another_classification_are_refused(classified, tmp_path, capsys):
    write_mrc(tmp_path / "one.mrcs", template(1)[None], PIXEL)
    assert main(["export", "--particles", str(classified / "particles.star"), "--classes", str(tmp_path / "one.mrcs"),
                 "--format", "relion", "--out", str(tmp_path / "out")]) == 2
    assert "one.mrcs: particles are in class 2" in capsys.readouterr().err


@pytest.mark.parametrize("size", [6, 7])
def test_mirroring_keeps_the_centre(size):
    image = np.zeros((size, size))
    image[1, size // 2 + 2] = 1
    assert mirror(image)[1, size // 2 - 2] == 1 and mirror(image).sum() == 1


def test_a_table_without_mirrored_members_has_no_new_classes():
    table, new = split_mirrored(pd.DataFrame({"rlnClassNumber": [1, 2], "rlnIsFlip": [0, 0]}))
    assert new == {} and table.columns.tolist() == ["rlnClassNumber"]


@pytest.fixture
def micrographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_mrc(tmp_path / "mics" / f"{name}.mrc", np.zeros((30, 40)), 1.5)
    write_star("mics.star", {
        "optics": pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["x", "y"], 
                                "rlnVoltage": [300.0, 300.0],
                                "rlnSphericalAberration": [2.7, 2.7], "rlnAmplitudeContrast": [0.1, 0.1],
                                "rlnMicrographPixelSize": [1.5, 1.5], "rlnBeamTiltX": [0.0, 0.5],
                                "rlnBeamTiltY": [0.0, 0.25]}),
        "micrographs": pd.DataFrame({"rlnMicrographName": ["mics/a.mrc", "mics/b.mrc"], "rlnOpticsGroup": [2, 1],
                                     "rlnDefocusU": [1e4, 2e4], "rlnDefocusV": [9e3, 19e3],
                                     "rlnDefocusAngle": [10.0, -20.0], "rlnCtfMaxResolution": [3.5, 4.25]})})
    write_star("picks.star", {"": pd.DataFrame({
        "rlnMicrographName": ["mics/a.mrc", "mics/b.mrc", "mics/a.mrc"], "rlnCoordinateX": [3.0, 38.25, 20.5],
        "rlnCoordinateY": [4.0, 1.0, 28.75], "rlnAutopickFigureOfMerit": [0.5, 1.25, 2.0]})})
    return tmp_path


@pytest.mark.parametrize("program, name", [("relion", "micrographs.star"), ("cryosparc", "micrographs.cs")])
def test_micrographs_go_out_and_come_back(micrographs, program, name):
    assert main(["export", "--micrographs", "mics.star", "--format", program, "--out", "out"]) == 0
    before, after = read_micrographs("mics.star"), read_micrographs(micrographs / "out" / name)
    assert after.names == before.names and after.pixel_sizes.tolist() == [1.5, 1.5]
    # The other program starts in another folder.
    assert all(path.is_absolute() for path in after.paths)
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution"]
    np.testing.assert_allclose(after.table[columns], before.table[columns], rtol=1e-6)
    tilts = [read.table["rlnOpticsGroup"].map(read.optics.set_index("rlnOpticsGroup")["rlnBeamTiltX"]).to_numpy()
             for read in (before, after)]
    np.testing.assert_allclose(tilts[1], tilts[0], rtol=1e-6)


@pytest.mark.parametrize("program, name", [("relion", "coordinates.star"), ("cryosparc", "locations.cs")])
def test_coordinates_go_out_and_come_back(micrographs, program, name):
    assert main(["export", "--micrographs", "mics.star", "--coordinates", "picks.star", "--format", program,
                 "--out", "out"]) == 0
    before = read_coordinates("picks.star").sort_values("rlnMicrographName", kind="stable")
    after = read_coordinates(micrographs / "out" / name)
    assert after["rlnMicrographName"].tolist() == [f"{micrographs}/mics/{name}.mrc" for name in "aab"]
    columns = ["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"]
    np.testing.assert_allclose(after[columns], before[columns], rtol=1e-6)


def test_stacks_that_relion_takes_for_volumes_are_linked(classified, tmp_path):
    stack = tmp_path / "J3" / "stack.mrc"
    write_mrc(stack, np.zeros((2, BOX, BOX)), PIXEL)
    write_star(tmp_path / "p.star", {"particles": pd.DataFrame({
        "rlnImageName": [f"000002@{stack}", f"000001@{stack}"], "rlnClassNumber": [None, 3.0], "note": [None, "x"]})})
    command = ["export", "--particles", str(tmp_path / "p.star"), "--format", "relion", "--out", str(tmp_path / "o")]
    assert main(command) == 0
    table = read_star(tmp_path / "o" / "particles.star")["particles"]
    link = tmp_path / "o" / "stacks" / "00001_stack.mrcs"
    assert table["rlnImageName"].tolist() == [f"000002@{link}", f"000001@{link}"] and link.resolve() == stack.resolve()
    # RELION knows no missing values.
    assert table["rlnClassNumber"].tolist() == [0, 3] and table["note"].tolist() == ["None", "x"]


def test_particles_that_are_dark_come_with_a_warning(classified, tmp_path, capsys):
    write_mrc(tmp_path / "s.mrcs", np.zeros((2, BOX, BOX)), PIXEL)
    write_star(tmp_path / "p.star", {"particles": pd.DataFrame({
        "rlnImageName": [f"{n}@{tmp_path}/s.mrcs" for n in (1, 2)], "cs__blob__sign": [-1.0, 1.0]})})
    command = ["export", "--particles", str(tmp_path / "p.star"), "--format", "relion", "--out", str(tmp_path / "o")]
    assert main(command) == 0
    assert "1 of 2 particles are dark on light" in capsys.readouterr().out
