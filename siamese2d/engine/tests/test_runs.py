"""The run's folder: record, resume, refusal, atomic files, and the command line's error paths."""

import errno
import json
import subprocess
import sys

import pytest

from siamese2d_engine import __version__
from siamese2d_engine.cli.main import main
from siamese2d_engine.devices import resolve_device, seed_from
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path, read_json, write_json
from siamese2d_engine.runs import Run


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_record_holds_what_a_reader_needs(tmp_path):
    table = tmp_path / "in.star"
    table.write_text("data_\n")
    with Run(tmp_path / "out", "pick", {"threshold": 0.5}, [table]) as run:
        assert record(run.out)["status"] == "running"
        run.results["picks"] = 7
        run.warn("one micrograph failed")
    found = record(tmp_path / "out")
    assert found["stage"] == "pick" and found["version"] == __version__ and found["status"] == "finished"
    assert found["parameters"] == {"threshold": 0.5} and found["results"] == {"picks": 7}
    assert found["warnings"] == ["one micrograph failed"]
    assert found["inputs"][0]["path"] == str(table) and len(found["inputs"][0]["sha256"]) == 64
    assert found["cpu_seconds"] > 0 and found["peak_memory_mb"] > 0 and "command" in found and "started" in found


def test_a_failure_is_recorded_and_continued(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with Run(tmp_path / "out", "pick", {}, []) as run:
            run.path("done.txt").write_text("first half")
            1 / 0
    assert record(tmp_path / "out")["status"] == "failed"
    with Run(tmp_path / "out", "pick", {}, []) as run:
        assert not run.finished
        assert run.path("done.txt").read_text() == "first half"


def test_finished_run_is_not_repeated(tmp_path):
    with Run(tmp_path / "out", "pick", {"a": 1}, []) as run:
        run.results["n"] = 3
    before = record(tmp_path / "out")
    with Run(tmp_path / "out", "pick", {"a": 1}, []) as run:
        assert run.finished and run.results == {"n": 3}
    assert record(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["parameters", "inputs", "stage"])
def test_another_run_is_refused_unless_overwritten(tmp_path, change):
    table = tmp_path / "in.star"
    table.write_text("data_a\n")
    with Run(tmp_path / "out", "pick", {"a": 1}, [table]) as run:
        run.path("sub", "old.txt").write_text("old")
    if change == "inputs":
        table.write_text("data_b\n")
    arguments = ("train" if change == "stage" else "pick", {"a": 2 if change == "parameters" else 1}, [table])
    with pytest.raises(InputError, match=f"{change}.*--overwrite"):
        with Run(tmp_path / "out", *arguments):
            pass
    assert (tmp_path / "out" / "sub" / "old.txt").exists()
    with Run(tmp_path / "out", *arguments, overwrite=True):
        assert not (tmp_path / "out" / "sub").exists()


def test_a_run_that_failed_before_any_output_gives_way_to_a_corrected_one(tmp_path):
    with pytest.raises(InputError):
        with Run(tmp_path / "out", "pick", {"a": 1}, []):
            raise InputError("wrong box")
    with Run(tmp_path / "out", "pick", {"a": 2}, []) as run:
        run.path("picks.star").write_text("")
    assert record(tmp_path / "out")["parameters"] == {"a": 2}


def test_foreign_folder_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        with Run(tmp_path, "pick", {}, [], overwrite=True):
            pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_processes_do_not_share_a_folder(tmp_path):
    with Run(tmp_path / "out", "pick", {}, []):
        code = ("import sys; from siamese2d_engine.runs import Run\n"
                "with Run(sys.argv[1], 'pick', {}, []): pass")
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert other.returncode != 0 and "another process" in other.stderr


def test_missing_input_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.star: the file does not exist"):
        Run(tmp_path / "out", "pick", {}, [tmp_path / "nowhere.star"])


def test_partial_files_of_a_killed_run_are_removed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with Run(tmp_path / "out", "pick", {}, []) as run:
            run.path("images", ".partial-x-a.mrc").write_text("half")
            1 / 0
    with Run(tmp_path / "out", "pick", {}, []) as run:
        assert not (run.out / "images" / ".partial-x-a.mrc").exists()


def test_atomic_path_keeps_the_old_file_on_error(tmp_path):
    target = tmp_path / "table.star"
    target.write_text("old")
    with pytest.raises(OSError):
        with atomic_path(target) as partial:
            partial.write_text("half of the n")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.star"]


def test_json_rejects_nan_and_names_a_damaged_file(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "b.json").write_text('{"x": ')
    with pytest.raises(InputError, match="b.json"):
        read_json(tmp_path / "b.json")


def test_seeds_do_not_collide():
    assert len({seed_from(a, b) for a in range(30) for b in range(30)}) == 900


def test_missing_gpu_is_an_error_not_a_fall_back():
    with pytest.raises(InputError, match="cuda:99.*not available"):
        resolve_device("cuda:99")
    with pytest.raises(InputError, match="not a device"):
        resolve_device("gpu")


def test_every_command_has_grouped_help_with_defaults(capsys):
    for command in ("normalize", "train-picker", "pick", "extract", "train", "classify"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0
        assert "output:" in text and "computing:" in text and "(default: None)" not in text
        assert ("(default: cpu)" in text) == (command not in ("normalize", "extract"))


def test_bad_input_is_one_message_and_status_2(tmp_path, capsys):
    status = main(["normalize", "--micrographs", str(tmp_path / "none.star"), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert status == 2 and "none.star" in error and "Traceback" not in error


def test_full_disk_is_one_message(monkeypatch, capsys):
    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device", "stack.mrcs")
    monkeypatch.setattr("siamese2d_engine.cli.check.run", full)
    assert main(["check"]) == 2
    assert "stack.mrcs: the disk is full" in capsys.readouterr().err
