"""Progress: lines in a log, the file in a run's folder while it runs, and nothing of it afterwards."""

import json
import threading

import pytest

from siamese2d_engine import progress as module
from siamese2d_engine.progress import duration, plural, progress, shown_in, work
from siamese2d_engine.runs import Run


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; every write is due."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: False)
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def shown(path):
    return json.loads(path.read_text())["work"]


def test_time_left_and_rate_are_those_of_the_last_minute(clock, tmp_path):
    with shown_in(tmp_path / "progress.json"), work("pick", 1000, "micrograph") as meter:
        for _ in range(100):
            meter.advance(8)
        assert meter.per_second() is None and meter.seconds_left() is None
        for _ in range(50):
            clock(2.0)
            meter.advance()
        assert meter.per_second() == pytest.approx((850 - 0) / 100)
        for _ in range(60):
            clock(2.0)
            meter.advance()
        # The 800 that were found done have no part in it any more.
        assert meter.per_second() == pytest.approx(0.5)
        assert meter.seconds_left() == pytest.approx(90 / 0.5)
        assert meter.text() == "910/1000 micrographs (91 %), 3 min left, 2 s per micrograph"
        [level] = shown(tmp_path / "progress.json")
    assert level == {"label": "pick", "unit": "micrograph", "done": 910, "total": 1000, "seconds_left": 180.0,
                     "per_second": 0.5, "text": "910/1000 micrographs (91 %), 3 min left, 2 s per micrograph"}
    assert list(tmp_path.iterdir()) == []


def test_work_inside_other_work_counts_as_part_of_an_item(clock, tmp_path):
    path = tmp_path / "progress.json"
    with shown_in(path), work("classify", 4, "pass") as outer:
        clock(10.0)
        outer.advance()
        for done in progress(range(10), "align", unit="particle"):
            if done == 5:
                break
            clock(4.0)
        first, second = shown(path)
        # 1.5 passes took 30 s when the fifth particle was done.
        assert (first["done"], second["done"], second["total"]) == (1, 5, 10)
        assert first["per_second"] == pytest.approx(1.5 / 30)
        assert first["seconds_left"] == pytest.approx(2.5 / (1.5 / 30))
        assert second["seconds_left"] == pytest.approx(20.0)
        assert first["text"] == "1/4 passes (37 %), 50 s left, 20 s per pass"
        # Whoever leaves a loop early is not shown any more.
        clock(60.0)
        outer.advance()
        assert [level["label"] for level in shown(path)] == ["classify"]


def test_log_has_sparse_lines_and_the_last_one(clock, capsys):
    for _ in progress(range(1000), "extract", unit="batch"):
        clock(1.0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == module.LINES_PER_LOOP
    assert lines[9] == "extract: 500/1000 batches (50 %), 8 min left, 1 s per batch"
    assert lines[-1].startswith("extract: 1000/1000 batches (100 %), 0 s left")


def test_items_of_several_and_details(clock, capsys):
    chunks = [range(4), range(4), range(2)]
    for _ in progress(chunks, "transform", 10, "particle", count=len):
        clock(0.1)
    with work("train", 3, "epoch", done=1) as meter:
        clock(5.0)
        meter.advance(detail="loss 0.5")
    assert capsys.readouterr().out.splitlines() == [
        "transform: 10/10 particles (100 %), 0 s left, 33 particles/s",
        "train: 2/3 epochs (66 %), 5 s left, 5 s per epoch; loss 0.5"]


def test_unknown_total(clock, capsys):
    for _ in progress(iter("abc"), "read", unit="row"):
        clock(4.0)
    assert capsys.readouterr().out.splitlines()[-1] == "read: 3 rows, 4 s per row"


def test_file_is_written_now_and_then(clock, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(module, "write_json", lambda path, content: written.append(content))
    with shown_in(tmp_path / "progress.json"):
        for _ in progress(range(1000), "normalize"):
            clock(0.01)
    # Once at the start and then every three seconds of ten.
    assert len(written) == 4


def test_run_shows_its_progress_and_leaves_none(clock, tmp_path):
    path = tmp_path / "out" / "progress.json"
    with Run(tmp_path / "out", "pick", {}) as run:
        assert not path.exists()
        for _ in progress(range(3), "pick"):
            clock(5.0)
            assert shown(path)[0]["label"] == "pick"
    assert not path.exists() and run.out.exists()
    with pytest.raises(ZeroDivisionError):
        with Run(tmp_path / "fails", "pick", {}), work("pick", 3):
            1 / 0
    assert sorted(p.name for p in (tmp_path / "fails").iterdir()) == [".lock", "run.json"]


def test_what_a_killed_run_left_is_not_shown_by_the_next(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with Run(tmp_path / "out", "pick", {}) as run:
            run.path("done.txt").write_text("half")
            1 / 0
    (tmp_path / "out" / "progress.json").write_text('{"work": []}')
    with Run(tmp_path / "out", "pick", {}):
        assert not (tmp_path / "out" / "progress.json").exists()


def test_a_full_disk_does_not_end_a_run_for_its_progress(clock, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(module, "write_json", full)
    with shown_in(tmp_path / "progress.json"):
        assert list(progress(range(3), "pick")) == [0, 1, 2]


def test_threads_do_not_disturb_the_file(clock, tmp_path):
    path = tmp_path / "progress.json"
    with shown_in(path), work("pick", 2, "micrograph") as meter:
        thread = threading.Thread(target=lambda: list(progress(range(5), "in a thread")))
        thread.start()
        thread.join()
        clock(5.0)
        meter.advance()
        assert [level["label"] for level in shown(path)] == ["pick"]


@pytest.mark.parametrize("seconds, text", [(0.04, "0.04 s"), (4, "4 s"), (75.4, "75 s"), (600, "10 min"),
                                           (7200, "2.0 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plurals():
    assert [plural(unit) for unit in ("pass", "batch", "epoch", "particle")] == \
        ["passes", "batches", "epochs", "particles"]
