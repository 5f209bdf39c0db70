"""Scores of picks against small cases worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.errors import InputError
from siamese2d_engine.evaluate.matching import match_by_distance, match_by_score, micrograph_key
from siamese2d_engine.evaluate.picks import precision_recall, score_picks
from siamese2d_engine.evaluate.stage import evaluate_picks_to
from siamese2d_engine.io.star import write_star


def points(*rows):
    return np.array(rows, dtype=float).reshape(-1, 2)


def test_better_scores_choose_first():
    truth = points((0, 0), (10, 0))
    picks = points((1, 0), (6, 0), (0, 1))
    # The middle pick is best and takes (10, 0), which is nearest; the last one, equally good as none, is left over.
    np.testing.assert_array_equal(match_by_score(picks, np.array([2.0, 3.0, 1.0]), truth, 8.0), [0, 1, -1])
    # When the last one is best it takes (0, 0), and the first finds nothing within 8 px.
    np.testing.assert_array_equal(match_by_score(picks, np.array([1.0, 2.0, 3.0]), truth, 8.0), [-1, 1, 0])


def test_the_radius_is_inclusive_and_duplicates_are_false():
    truth = points((0, 0))
    np.testing.assert_array_equal(match_by_score(points((3, 4), (0, 0)), np.array([1.0, 1.0]), truth, 5.0), [0, -1])
    np.testing.assert_array_equal(match_by_score(points((3, 4.01)), np.array([1.0]), truth, 5.0), [-1])


def test_matching_without_points():
    assert len(match_by_score(points(), np.zeros(0), points((0, 0)), 5.0)) == 0
    np.testing.assert_array_equal(match_by_score(points((0, 0)), np.zeros(1), points(), 5.0), [-1])
    np.testing.assert_array_equal(match_by_distance(points((0, 0)), points(), 5.0), [-1])


def test_closest_pairs_first():
    # In order of rows, 0 would take truth 0 (distance 3) and leave row 1 (distance 1) without.
    np.testing.assert_array_equal(match_by_distance(points((3, 0), (1, 0)), points((0, 0)), 5.0), [-1, 0])
    np.testing.assert_array_equal(match_by_distance(points((3, 0), (1, 0)), points((0, 0), (9, 0)), 6.0), [1, 0])


def test_scores_by_hand():
    truths = [points((0, 0), (50, 0)), points((0, 0), (90, 90))]
    picks = [points((3, 4), (200, 0)), points((0, 0), (1, 1))]
    scores = [np.array([0.9, 0.8]), np.array([0.7, 0.6])]
    # Ranking: hit, miss, hit, miss (duplicate); 4 particles. Precision at the hits: 1 and 2/3.
    result = score_picks(picks, scores, truths, 10.0)
    assert result.average_precision == pytest.approx((1 + 2 / 3) / 4)
    assert (result.picks, result.particles) == (4, 4)
    # F1 of the first 1, 2, 3, 4 picks: 2/5, 2/6, 4/7, 4/8.
    assert result.best_f1 == pytest.approx(4 / 7)
    assert result.best_precision == pytest.approx(2 / 3)
    assert result.best_recall == pytest.approx(1 / 2)
    assert result.best_threshold == 0.7
    assert (result.precision, result.recall, result.f1) == pytest.approx((0.5, 0.5, 0.5))
    assert result.median_error == pytest.approx(2.5)  # distances 5 and 0
    assert result.rms_error == pytest.approx(np.sqrt(12.5))


def test_perfect_and_hopeless_picks():
    truth = [points((0, 0), (50, 50))]
    perfect = score_picks(truth, [np.array([1.0, 2.0])], truth, 1.0)
    assert (perfect.average_precision, perfect.best_f1, perfect.median_error) == (1.0, 1.0, 0.0)
    hopeless = score_picks([truth[0] + 20], [np.array([1.0, 2.0])], truth, 1.0)
    assert (hopeless.average_precision, hopeless.best_f1, hopeless.median_error) == (0.0, 0.0, None)


def test_average_precision_is_the_area_under_the_steps():
    rng = np.random.default_rng(0)
    hits = rng.random(60) < np.linspace(0.9, 0.1, 60)
    precision, recall = precision_recall(hits, 50)
    area = sum((r - before) * p for p, r, before in zip(precision, recall, np.concatenate([[0], recall])))
    truth = points(*[(100 * i, 0) for i in range(50)])
    found = iter(range(50))
    picks = points(*[(100 * next(found), 0) if hit else (-500 - 100 * i, 9) for i, hit in enumerate(hits)])
    assert score_picks([picks], [-np.arange(60.0)], [truth], 5.0).average_precision == pytest.approx(area)


def test_micrograph_keys_ignore_folders_and_image_endings_only():
    assert micrograph_key("a/b/May08_03.05.02.png") == micrograph_key("May08_03.05.02") == "May08_03.05.02"
    assert micrograph_key("Runs/1/mic.MRC") == "mic"


@pytest.fixture
def files(tmp_path):
    """Picks (STAR) of two micrographs, and truth (CSV) of two annotators, in pixels twice as large for B."""
    picks = pd.DataFrame(
        {
            "rlnMicrographName": ["x/m1.mrc", "x/m1.mrc", "x/m2.mrc"],
            "rlnCoordinateX": [10.0, 50.0, 30.0],
            "rlnCoordinateY": [10.0, 50.0, 30.0],
            "rlnAutopickFigureOfMerit": [3.0, 2.0, 1.0],
        }
    )
    write_star(tmp_path / "picks.star", {"coordinates": picks})
    rows = ["micrograph,annotator,x,y", "m1,A,10,11", "m1,A,90,90", "m2,A,30,30", "m1,B,5,5", "m1,B,25,25"]
    (tmp_path / "truth.csv").write_text("\n".join(rows) + "\n")
    write_star(tmp_path / "held_out.star", {"micrographs": pd.DataFrame({"rlnMicrographName": ["y/m1.mrc"]})})
    return tmp_path


def evaluate(folder, out, **options):
    settings = dict(coordinates=folder / "picks.star", truth=folder / "truth.csv", radius=5.0) | options
    return evaluate_picks_to(folder / out, **settings)


def test_one_annotator(files, capsys):
    result = evaluate(files, "a", where={"annotator": "A"})
    assert result["average_precision"] == pytest.approx((1 + 2 / 3) / 3)
    assert (result["micrographs"], result["particles"], result["picks"]) == (2, 3, 3)
    assert "average precision  0.556" in capsys.readouterr().out
    assert json.loads((files / "a" / "evaluation.json").read_text()) == result


def test_the_other_annotator_in_larger_pixels(files):
    result = evaluate(files, "b", where={"annotator": "B"}, truth_scale=2.0)
    assert (result["average_precision"], result["micrographs"], result["ignored_picks"]) == (1.0, 1, 1)


def test_only_the_micrographs_asked_for(files, capsys):
    result = evaluate(files, "m1", where={"annotator": "A"}, micrographs=files / "held_out.star")
    assert (result["micrographs"], result["picks"], result["particles"], result["recall"]) == (1, 2, 2, 0.5)
    assert "1 picks lie in micrographs that are not scored" in capsys.readouterr().out


def test_a_finished_evaluation_is_printed_again(files, capsys):
    first = evaluate(files, "again")
    capsys.readouterr()
    assert evaluate(files, "again") == first
    assert "average precision" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        ({"where": {"annotator": "C"}}, "Values there: A, B"),
        ({"where": {"person": "A"}}, "no column 'person'"),
    ],
)
def test_bad_filters_are_named(files, options, words):
    with pytest.raises(InputError, match=words):
        evaluate(files, "bad", **options)


def test_picks_of_other_micrographs(files):
    (files / "other.csv").write_text("micrograph,x,y\nelsewhere,1,1\n")
    with pytest.raises(InputError, match="other.csv: no pick lies in the scored micrographs"):
        evaluate(files, "other", coordinates=files / "other.csv")


def test_truth_of_other_micrographs(files):
    write_star(files / "none.star", {"micrographs": pd.DataFrame({"rlnMicrographName": ["m7.mrc", "m8.mrc"]})})
    with pytest.raises(InputError, match="no true particle lies in the micrographs of"):
        evaluate(files, "none", micrographs=files / "none.star")


def test_a_score_that_is_no_number(files):
    (files / "bad.csv").write_text("micrograph,x,y,score\nm1,1,1,0.5\nm1,2,2,high\n")
    with pytest.raises(InputError, match="bad.csv, row 2: rlnAutopickFigureOfMerit is not a number"):
        evaluate(files, "score", coordinates=files / "bad.csv")


def test_the_command_line(files, capsys):
    command = ["evaluate", "picks", "--out", str(files / "cli"), "--coordinates", str(files / "picks.star"), "--truth"]
    command += [str(files / "truth.csv"), "--radius", "5", "--where", "annotator=A", "--micrographs"]
    assert main([*command, str(files / "held_out.star")]) == 0
    assert "true particles     2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, str(files / "held_out.star"), "--where", "annotator"])
    assert "not of the form COLUMN=VALUE" in capsys.readouterr().err
