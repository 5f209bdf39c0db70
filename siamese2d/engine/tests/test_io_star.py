"""STAR files as RELION, Scipion and people write them; coordinates from STAR, CSV and TSV."""

import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import group_by_micrograph, read_coordinates, write_coordinates
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.micrographs import read_micrographs, write_micrographs
from siamese2d_engine.io.star import read_star, write_star

RELION_31 = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnMicrographPixelSize #4 [Angstroms]
           1 opticsGroup1   300.000000     1.250000
           2 opticsGroup2   200.000000     2.500000


# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCtfMaxResolution #3
_myOwnColumn #4
a.mrc            2     4.500000 keep
b.mrc\t1\t5.500000\tme

"""

RELION_30 = """

data_

loop_
_rlnMicrographName #1
_rlnCtfMaxResolution #2
_rlnMagnification #3
_rlnDetectorPixelSize #4
a.mrc 4.5 20000.0 5.0
b.mrc 5.5 20000.0 5.0
"""


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two small micrographs a.mrc and b.mrc, 40 x 30 pixels, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mrc", "b.mrc"):
        write_mrc(tmp_path / name, np.zeros((30, 40)), 3.0)
    return tmp_path


# ---- STAR


def test_relion_31(tmp_path):
    blocks = read_star(write(tmp_path / "m.star", RELION_31))
    assert list(blocks) == ["optics", "micrographs"]
    assert blocks["optics"]["rlnMicrographPixelSize"].tolist() == [1.25, 2.5]
    table = blocks["micrographs"]
    assert table["rlnMicrographName"].tolist() == ["a.mrc", "b.mrc"]
    assert table["rlnOpticsGroup"].tolist() == [2, 1]
    assert table["myOwnColumn"].tolist() == ["keep", "me"]


def test_relion_30_has_one_block_without_name(tmp_path):
    blocks = read_star(write(tmp_path / "m.star", RELION_30))
    assert list(blocks) == [""]
    assert blocks[""]["rlnDetectorPixelSize"].tolist() == [5.0, 5.0]


def test_columns_without_numbers_and_blocks_without_loop(tmp_path):
    text = "data_general\n\n_rlnFinalResolution  7.5\n_rlnName  'two words'\n\ndata_x\nloop_\n_one\n_two\n1 2\n"
    blocks = read_star(write(tmp_path / "g.star", text))
    assert len(blocks["general"]) == 1 and float(blocks["general"]["rlnFinalResolution"].iloc[0]) == 7.5
    assert blocks["x"]["two"].tolist() == [2]


def test_windows_line_ends(tmp_path):
    (tmp_path / "w.star").write_bytes(RELION_31.replace("\n", "\r\n").encode())
    assert read_star(tmp_path / "w.star")["micrographs"]["rlnMicrographName"].tolist() == ["a.mrc", "b.mrc"]


def test_names_that_look_like_numbers_stay_text(tmp_path):
    text = "data_\nloop_\n_rlnMicrographName #1\n_rlnImageName #2\n_rlnCoordinateX #3\n0012 1@7 1.5\n0013 2@7 2.5\n"
    table = read_star(write(tmp_path / "n.star", text))[""]
    assert table["rlnMicrographName"].tolist() == ["0012", "0013"]
    assert table["rlnImageName"].tolist() == ["1@7", "2@7"]


def test_numbers_and_names(tmp_path):
    rows = ["1 1 1.5 1_000 7 x", "2 2.5 nan 2_000 <NA> 3", "-3 1e3 -inf 3 9 4"]
    text = "data_\nloop_\n_whole\n_float\n_odd\n_name\n_gap\n_mixed\n" + "\n".join(rows) + "\n"
    table = read_star(write(tmp_path / "t.star", text))[""]
    assert table["whole"].tolist() == [1, 2, -3] and table["whole"].dtype.kind == "i"
    assert table["float"].tolist() == [1.0, 2.5, 1000.0]
    np.testing.assert_array_equal(table["odd"], [1.5, np.nan, -np.inf])
    assert table["name"].tolist() == ["1_000", "2_000", "3"] and table["mixed"].tolist() == ["x", "3", "4"]
    np.testing.assert_array_equal(table["gap"], [7, np.nan, 9])


def test_comments_and_rows_that_look_like_keywords(tmp_path):
    text = "# first\ndata_x # block\nloop_\n_name #1\n_n #2\n# between\ndata_1.mrc 1 # after\n_b.mrc 2\nc#d.mrc 3\n"
    table = read_star(write(tmp_path / "t.star", text))["x"]
    assert table["name"].tolist() == ["data_1.mrc", "_b.mrc", "c#d.mrc"] and table["n"].tolist() == [1, 2, 3]


def test_a_column_that_occurs_twice(tmp_path):
    with pytest.raises(InputError, match="t.star, line 4: the column a occurs twice"):
        read_star(write(tmp_path / "t.star", "data_x\nloop_\n_a\n_a\n1 2\n"))


def test_a_single_value_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="t.star, line 2: a has 0 values instead of one"):
        read_star(write(tmp_path / "t.star", "data_x\n_a\n_b 2\n"))


def test_the_same_table_gives_the_same_bytes(tmp_path):
    for name in ("one.star", "two.star"):
        write_star(tmp_path / name, {"x": pd.DataFrame({"a": [1.5, 2.5], "b": [True, False]})})
    assert (tmp_path / "one.star").read_bytes() == (tmp_path / "two.star").read_bytes()
    assert read_star(tmp_path / "one.star")["x"]["b"].tolist() == [1, 0]


def test_round_trip_keeps_everything(tmp_path):
    tables = {
        "optics": pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"]}),
        "particles": pd.DataFrame(
            {
                "rlnMicrographName": ["folder with spaces/a.mrc", "plain.mrc", "it's.mrc", "'both\" kinds"],
                "rlnCoordinateX": [0.123456, -12345.5, 1e-5, 0.0],
                "siamese2dItemId": [1, 123456789012, 3, 4],
                "myText": ["", "y z", "w#1", "#1"],
            }
        ),
    }
    write_star(tmp_path / "out.star", tables)
    back = read_star(tmp_path / "out.star")
    assert list(back) == list(tables)
    for name, table in tables.items():
        assert list(back[name].columns) == list(table.columns)
        for column in table:
            if table[column].dtype.kind == "f":
                np.testing.assert_allclose(back[name][column], table[column], atol=1e-6)
            else:
                assert back[name][column].tolist() == table[column].tolist()


def test_missing_values_come_back_as_missing(tmp_path):
    write_star(tmp_path / "n.star", {"x": pd.DataFrame({"a": [1.0, np.nan], "b": ["one", "two"]})})
    column = pd.to_numeric(read_star(tmp_path / "n.star")["x"]["a"], errors="coerce")
    assert column.iloc[0] == 1.0 and np.isnan(column.iloc[1])


def test_one_row_stays_a_table(tmp_path):
    write_star(tmp_path / "one.star", {"x": pd.DataFrame({"a": [1], "b": [2.5]})})
    assert read_star(tmp_path / "one.star")["x"].shape == (1, 2)


def test_quoted_values(tmp_path):
    text = "data_x\nloop_\n_rlnMicrographName #1\n_n #2\n\"a b.mrc\" 1\n'c d.mrc' 2\ne.mrc 3\n"
    table = read_star(write(tmp_path / "q.star", text))["x"]
    assert table["rlnMicrographName"].tolist() == ["a b.mrc", "c d.mrc", "e.mrc"]
    assert table["n"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("row, count", [("a.mrc 2", 2), ("a.mrc 2 4.5 keep more", 5)])
def test_rows_of_the_wrong_length_are_named(tmp_path, row, count):
    text = RELION_31.replace("b.mrc\t1\t5.500000\tme", row)
    number = text.splitlines().index(row) + 1
    with pytest.raises(InputError, match=f"m.star, line {number}: {count} values for 4 columns"):
        read_star(write(tmp_path / "m.star", text))


def test_a_file_cut_off_in_the_middle(tmp_path):
    cut = RELION_31[: RELION_31.index("5.500000") - 1]
    with pytest.raises(InputError, match="m.star, line .*truncated"):
        read_star(write(tmp_path / "m.star", cut))


@pytest.mark.parametrize(
    "content", [b"", b"just some words\n", bytes(range(256)) * 20, b"\x89PNG\r\n\x1a\n" + b"\0" * 50]
)
def test_files_that_are_no_star(tmp_path, content):
    (tmp_path / "no.star").write_bytes(content)
    with pytest.raises(InputError, match="no.star"):
        read_star(tmp_path / "no.star")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="gone.star: the file does not exist"):
        read_star(tmp_path / "gone.star")
    with pytest.raises(InputError, match=str(tmp_path)):
        read_star(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_star(tmp_path / "x.star", {"x": pd.DataFrame({"a": [1]})})
    before = (tmp_path / "x.star").read_bytes()

    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

        __repr__ = __str__

    with pytest.raises(RuntimeError, match="no text"):
        write_star(tmp_path / "x.star", {"x": pd.DataFrame({"a": [Unprintable()]})})
    assert (tmp_path / "x.star").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.star"]


# ---- micrographs


def test_micrographs_of_relion_31(images):
    micrographs = read_micrographs(write(images / "m.star", RELION_31))
    assert micrographs.names == ["a", "b"]
    assert micrographs.pixel_sizes.tolist() == [2.5, 1.25]
    assert micrographs.subset([1]).names == ["b"] and micrographs.subset(np.array([True, False])).names == ["a"]


def test_micrographs_of_relion_30(images):
    micrographs = read_micrographs(write(images / "m.star", RELION_30))
    assert micrographs.pixel_sizes.tolist() == [2.5, 2.5] and micrographs.optics is None


def test_micrographs_of_a_folder_take_their_headers(images):
    assert read_micrographs(images).pixel_sizes.tolist() == [3.0, 3.0]
    assert read_micrographs(images, pixel_size=1.5).pixel_sizes.tolist() == [1.5, 1.5]
    assert read_micrographs([images / "b.mrc"]).names == ["b"]


def test_rewritten_micrographs_keep_columns_and_get_their_pixel_size(images):
    micrographs = read_micrographs(write(images / "m.star", RELION_31))
    for name in ("small_a.mrc", "small_b.mrc"):
        write_mrc(images / name, np.zeros((15, 20)), 5.0)
    write_micrographs(images / "out.star", micrographs, ["small_a.mrc", "small_b.mrc"], 2 * micrographs.pixel_sizes)
    back = read_micrographs(images / "out.star")
    assert back.pixel_sizes.tolist() == [5.0, 2.5]
    assert back.table["myOwnColumn"].tolist() == ["keep", "me"]
    assert back.table["rlnOpticsGroup"].map(back.optics.set_index("rlnOpticsGroup")["rlnVoltage"]).tolist() == [
        200,
        300,
    ]


def test_images_beside_the_star_file_are_found(images, tmp_path_factory, monkeypatch):
    write(images / "m.star", RELION_30)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert [path.parent for path in read_micrographs(images / "m.star").paths] == [images, images]


@pytest.mark.parametrize(
    "text, words",
    [
        (RELION_30.replace("_rlnMicrographName", "_rlnOther"), "no column rlnMicrographName"),
        (RELION_30.replace("a.mrc", "x.mrc").replace("b.mrc", "y.mrc"), "none of its 2 micrographs exists"),
        (RELION_30.replace("b.mrc", "./sub/a.mrc"), "occur more than once"),
    ],
)
def test_bad_sets_of_micrographs(images, text, words):
    with pytest.raises(InputError, match=f"m.star.*{words}"):
        read_micrographs(write(images / "m.star", text))


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="no images found"):
        read_micrographs(tmp_path)


def test_an_unknown_pixel_size(images):
    write_mrc(images / "a.mrc", np.zeros((30, 40)), 0.0)
    with pytest.raises(InputError, match="a.mrc: the pixel size is not known.*--pixel-size"):
        read_micrographs(images)


# ---- coordinates


@pytest.mark.parametrize(
    "name, text",
    [
        ("c.csv", "micrograph,annotator,x,y\na,A,1.5,2\nb,B,3,4\n"),
        ("c.csv", "Micrograph, x, y, annotator\na, 1.5, 2, A\nb, 3, 4, B\n"),
        ("c.tsv", "image_name\tx_coord\ty_coord\tscore\na\t1.5\t2\t0.5\nb\t3\t4\t0.25\n"),
        ("c.txt", "image_name\tx_coord\ty_coord\na\t1.5\t2\nb\t3\t4\n"),
        ("c.star", "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\na 1.5 2\nb 3 4\n"),
    ],
)
def test_coordinates_of_all_kinds(tmp_path, name, text):
    table = read_coordinates(write(tmp_path / name, text))
    assert table["rlnMicrographName"].tolist() == ["a", "b"]
    assert table["rlnCoordinateX"].tolist() == [1.5, 3.0] and table["rlnCoordinateY"].tolist() == [2.0, 4.0]
    if "score" in text:
        assert table["rlnAutopickFigureOfMerit"].tolist() == [0.5, 0.25]
    if "annotator" in text:
        assert table["annotator"].tolist() == ["A", "B"]


def test_coordinates_beside_an_optics_table(tmp_path):
    text = RELION_31.split("data_micrographs")[0] + "data_particles\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n"
    text += "_rlnCoordinateY\na.mrc 1 2\n"
    assert len(read_coordinates(write(tmp_path / "c.star", text))) == 1


def test_coordinates_round_trip(tmp_path):
    table = pd.DataFrame(
        {"rlnMicrographName": ["a.mrc"], "rlnCoordinateX": [1.25], "rlnCoordinateY": [2.5], "mine": ["x"]}
    )
    write_coordinates(tmp_path / "c.star", table)
    pd.testing.assert_frame_equal(read_coordinates(tmp_path / "c.star"), table, check_dtype=False)


@pytest.mark.parametrize(
    "text, words",
    [
        ("micrograph,x,y\n", "holds no coordinates"),
        ("micrograph,x\na,1\n", "no column rlnCoordinateY"),
        ("micrograph,x,y\na,1,2\na,one,2\n", "row 2: rlnCoordinateX is not a number"),
        ("micrograph,x,y\na,1,2\na,1,\n", "row 2: rlnCoordinateY is not a number"),
        ("micrograph,x,y\na,1,inf\n", "row 1: rlnCoordinateY is not a number"),
        ("", "c.csv"),
    ],
)
def test_bad_coordinates_name_file_and_row(tmp_path, text, words):
    with pytest.raises(InputError, match=f"c.csv.*{words}|{words}"):
        read_coordinates(write(tmp_path / "c.csv", text))


def test_missing_coordinates(tmp_path):
    for name in ("gone.csv", "gone.star"):
        with pytest.raises(InputError, match=f"{name}: the file does not exist"):
            read_coordinates(tmp_path / name)


def coordinates(*rows):
    return pd.DataFrame(rows, columns=["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"])


def test_coordinates_are_grouped_by_name_or_stem(images):
    micrographs = read_micrographs(images)
    table = coordinates(("x/b.mrc", 1.0, 2.0), ("a", 3.0, 4.0), ("other.mrc", 500.0, 500.0), ("x/b.mrc", 5.0, 6.0))
    groups = group_by_micrograph(table, micrographs)
    assert [rows["rlnCoordinateX"].tolist() for rows in groups] == [[3.0], [1.0, 5.0]]


def test_full_names_go_before_stems(images):
    table = coordinates((str(images / "a.mrc"), 1.0, 1.0), ("other/a.mrc", 2.0, 2.0))
    groups = group_by_micrograph(table, read_micrographs(images))
    assert groups[0]["rlnCoordinateX"].tolist() == [1.0] and len(groups[1]) == 0


def test_a_dot_in_a_name_is_no_ending(tmp_path):
    write_mrc(tmp_path / "May08_03.05.02.mrc", np.zeros((30, 40)), 3.0)
    write_mrc(tmp_path / "May08_03.05.07.mrc", np.zeros((30, 40)), 3.0)
    table = coordinates(("May08_03.05.07", 1.0, 2.0), ("May08_03.05.02", 3.0, 4.0))
    groups = group_by_micrograph(table, read_micrographs(tmp_path))
    assert [rows["rlnCoordinateX"].tolist() for rows in groups] == [[3.0], [1.0]]


def test_coordinates_of_other_micrographs(images):
    with pytest.raises(InputError, match="None of the 1 coordinates belongs.*'zz.mrc'"):
        group_by_micrograph(coordinates(("zz.mrc", 1.0, 1.0)), read_micrographs(images))


@pytest.mark.parametrize("x, y", [(40.0, 10.0), (10.0, 30.0), (-1.0, 10.0)])
def test_coordinates_outside_the_image(images, x, y):
    with pytest.raises(InputError, match="b.mrc: 1 of 2 coordinates lie outside this image of 40 x 30"):
        group_by_micrograph(coordinates(("b.mrc", 1.0, 1.0), ("b.mrc", x, y)), read_micrographs(images))


def test_the_borders_of_the_image_are_inside(images):
    table = coordinates(("b.mrc", 0.0, 0.0), ("b.mrc", 39.0, 29.0))
    assert len(group_by_micrograph(table, read_micrographs(images))[1]) == 2
