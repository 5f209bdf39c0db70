"""Faults, injected: what the engine does when it is killed, when the disk is full, when files vanish or lie, when memory
ends, and when clocks jump. docs/faults.rst is the table of it."""

import errno
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch

from siamese2d_engine.batches import Room, in_parts
from siamese2d_engine.classify import assignment, averages, fit, passes, prepare, realspace
from siamese2d_engine.classify.engine import Classifier
from siamese2d_engine.classify.inputs import circular_mask, number_of_rings
from siamese2d_engine.classify.schedule import Recipe, schedule
from siamese2d_engine.cli.main import main
from siamese2d_engine.embedding import inference, networks
from siamese2d_engine.embedding.resnet import load_backbone
from siamese2d_engine.errors import InputError
from siamese2d_engine.io import images
from siamese2d_engine.io.cs_file import write_cs
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.models import save_model
from siamese2d_engine.io.particles import ctf_parameters, read_particles
from siamese2d_engine.io.star import read_star, write_star
from siamese2d_engine.normalize.parallel import parallel_map
from siamese2d_engine.picking import scoring
from siamese2d_engine.picking.network import PickerNetwork

# Children are forked from a process that has imported the engine once and started no threads.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "siamese2d_engine.cli.main", "siamese2d_engine.picking.stage",
                                "siamese2d_engine.embedding.stage", "siamese2d_engine.classify.assign_stage"])
SECONDS = 300
ONE_THREAD = ["--threads", "1"]
# What tells of a run, not of its result.
RECORDS = ("run.json", "progress.json", ".lock")


def commands(data):
    """Arguments of each stage on small data, without --out."""
    micrographs, particles = str(data / "mics" / "micrographs.star"), str(data / "stack" / "particles.star")
    labels = str(data / "mics" / "training_coordinates.star")
    return {
        "simulate micrographs": ["simulate", "micrographs", "--micrographs", "3", "--size", "192", "--species", "1",
                                 "--particles-per-micrograph", "8", "--diameter", "100", "--pixel-size", "4"],
        "simulate particles": ["simulate", "particles", "--particles", "90", "--box", "32", "--pixel-size", "5",
                               "--species", "2", "--snr", "0.5"],
        "normalize": ["normalize", "--micrographs", micrographs],
        "normalize each": ["normalize", "--micrographs", micrographs, "--method", "each"],
        "pick-unlabeled": ["pick-unlabeled", "--micrographs", micrographs, "--diameter", "100"],
        "train-picker": ["train-picker", "--micrographs", micrographs, "--coordinates", labels, "--diameter", "100",
                         "--network", "small", "--epochs", "3", "--steps", "2", "--crops", "1", "--windows", "4",
                         "--expected-particles", "8", "--from-scratch"],
        "pick": ["pick", "--micrographs", micrographs, "--model", str(data / "picker" / "picker.safetensors"),
                 "--threshold", "0.1"],
        "extract": ["extract", "--micrographs", micrographs, "--coordinates", str(data / "mics" / "truth.star"),
                    "--box", "32"],
        "train": ["train", "--particles", particles, "--epochs", "3", "--working-box", "16", "--batch-size", "32",
                  "--no-centre"],
        "classify": ["classify", "--particles", particles, "--classes", "3", "--passes", "2"],
        "assign": ["assign", "--particles", particles, "--classes", str(data / "classes" / "classes.star"),
                   "--new-averages"],
        "export": ["export", "--particles", str(data / "classes" / "particles.star"), "--format", "cryosparc"],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Simulated micrographs and particles, a picker and classes."""
    folder = tmp_path_factory.mktemp("faults")
    for stage, name in (("simulate micrographs", "mics"), ("simulate particles", "stack"), ("train-picker", "picker"),
                        ("classify", "classes")):
        status, _, printed = run(folder, stage, folder, out=str(folder / name))
        assert status == 0, printed
    return folder


@pytest.fixture(scope="module")
def whole(data):
    """What a stage writes without a fault: files in order, and the contents of its folder; each is run once."""
    known = {}

    def of(stage):
        if stage not in known:
            folder = data / "runs" / stage
            status, written, printed = run(data, stage, folder)
            assert status == 0, printed
            known[stage] = written, contents(folder / "out")
        shutil.rmtree(data / "runs" / stage, ignore_errors=True)
        return known[stage]

    return of


def run(data, stage, folder, fault=None, out="out"):
    """Run a stage in a child of its own, with a fault.

    Returns the exit status (negative: the signal), the files that the stage wrote whole, in order, and what it printed.
    """
    arguments = [*commands(data)[stage], "--out", out, *ONE_THREAD]
    status = in_child(_run, folder, arguments, fault)
    return status, (folder / "written.txt").read_text().splitlines(), (folder / "printed.txt").read_text()


def in_child(function, folder, *arguments):
    """Exit status of a function that runs in a process and a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    child = CONTEXT.Process(target=_child, args=(function, folder, arguments))
    child.start()
    child.join(SECONDS)
    hangs = child.exitcode is None
    if hangs:
        child.kill()
    assert not hangs, f"{function.__name__}{arguments} hangs"
    return child.exitcode


def _child(function, folder, arguments):
    os.chdir(folder)
    with open("printed.txt", "w", buffering=1) as printed:
        sys.stdout = sys.stderr = printed
        sys.exit(function(*arguments))


def _run(arguments, fault):
    with open("written.txt", "w", buffering=1) as written:
        _watch_writes(written, fault)
        if fault and fault[0] in ("cut", "gone"):
            _spoil_reads(*fault)
        if fault == ("clock",):
            _jump_clocks()
        return main(arguments)


def _watch_writes(written, fault):
    """Note every file that is about to be whole; fail at the one that the fault asks for."""
    from siamese2d_engine.io import atomic

    real, count = atomic._flush_to_disk, 0

    def flush(path):
        nonlocal count
        name = path.name.split("-", 2)[2]
        if name not in RECORDS:
            count += 1
            if fault == ("kill", count):
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == ("full", count):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.write(name + "\n")
        real(path)

    atomic._flush_to_disk = flush


def _spoil_reads(kind, name, count):
    """Cut a file in half, or remove it, just before the given read of its pixels."""
    real, seen = images.MrcLayout.read, 0

    def read(layout, path, indices):
        nonlocal seen
        if Path(path).name == name:
            seen += 1
            if seen == count:
                os.truncate(path, path.stat().st_size // 2) if kind == "cut" else path.unlink()
        return real(layout, path, indices)

    images.MrcLayout.read = read


def _jump_clocks():
    """The wall clock goes back a day with every look at it, the other one ahead by a day."""
    back, ahead = iter(range(10**9)), iter(range(10**9))
    real_time, real_monotonic = time.time, time.monotonic
    time.time = lambda: real_time() - 86400 * next(back)
    time.monotonic = lambda: real_monotonic() + 86400 * next(ahead)


def contents(folder):
    """What a run left, by file; images without the time in their headers."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in RECORDS):
        name = str(path.relative_to(folder))
        if path.suffix in (".mrc", ".mrcs"):
            found[name] = mrcfile.read(path).tobytes()
        elif path.suffix == ".csg":
            found[name] = path.read_text().splitlines()[1:]
        else:
            found[name] = path.read_bytes()
    return found


STAGES = tuple(stage for stage in commands(Path()) if stage not in ("normalize each", "simulate particles"))


# --------------------------- kill -9, a full disk ---------------------------------------
@pytest.mark.parametrize("stage", STAGES)
def test_killed_then_out_of_disk_then_continued_to_the_same_answer(data, whole, stage):
    """SIGKILL before half of the files are written; no space for one of the rest; then nothing in the way."""
    written, expected = whole(stage)
    folder, middle = data / "runs" / stage, max(1, len(written) // 2)
    assert run(data, stage, folder, ("kill", middle))[0] == -signal.SIGKILL
    assert json.loads((folder / "out" / "run.json").read_text())["status"] == "running"
    place = max(1, (len(written) - middle) // 2)
    status, _, printed = run(data, stage, folder, ("full", place))
    assert status == 2 and "the disk is full" in printed and "Traceback" not in printed
    assert Path(printed.split("error: ")[1].split(": the disk")[0]).name in written
    assert "the disk is full" in json.loads((folder / "out" / "run.json").read_text())["message"]
    assert not list((folder / "out").rglob(".partial-*"))
    status, _, printed = run(data, stage, folder)
    assert status == 0, printed
    assert contents(folder / "out") == expected


WRITERS = {
    "a.mrc": lambda path: write_mrc(path, np.zeros((400, 400)), 1.0),
    "a.safetensors": lambda path: save_model(path, {"kind": "x"}, {"a": torch.zeros(200_000)}),
    "a.star": lambda path: write_star(path, {"": pd.DataFrame({"a": np.arange(100_000)})}),
    "a.cs": lambda path: write_cs(path, {"uid": np.arange(100_000)}),
}


def _write_beyond_the_limit():
    # The system refuses what goes beyond: a true short write, as on a full disk, which needs no disk of its own.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    for name, write in WRITERS.items():
        path = Path(name).absolute()
        path.write_text("what was there before")
        try:
            write(path)
        except OSError as error:
            assert error.errno in (errno.EFBIG, errno.ENOSPC) and error.filename == str(path), (name, error)
        else:
            raise AssertionError(f"{name} was written")
        assert path.read_text() == "what was there before" and not list(Path().glob(".partial-*"))
    return 0


def test_every_writer_names_the_file_that_did_not_fit_and_leaves_the_old_one(tmp_path):
    assert in_child(_write_beyond_the_limit, tmp_path) == 0, (tmp_path / "printed.txt").read_text()


# --------------------------- files that vanish or are cut --------------------------------
# Those that first learn from all micrographs lose one after that; lost before, it would have no part in what is learned.
@pytest.mark.parametrize("stage, kind, read", [("normalize each", "cut", 1), ("pick-unlabeled", "gone", 2), ("pick", "cut", 1),
                                               ("extract", "gone", 1)])
def test_a_micrograph_that_is_lost_is_skipped_and_done_by_the_next_start(data, whole, stage, kind, read):
    expected, folder = whole(stage)[1], data / "runs" / stage
    path = data / "mics" / "micrographs" / "simulated_002.mrc"
    kept = path.read_bytes(), path.stat()
    try:
        status, _, printed = run(data, stage, folder, (kind, path.name, read))
    finally:
        path.write_bytes(kept[0])
        os.utime(path, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
    assert status == 0 and f"warning: {path}" in printed
    assert json.loads((folder / "out" / "run.json").read_text())["results"]["failed"] == 1
    status, _, printed = run(data, stage, folder)
    assert status == 0 and f"warning: {path}" not in printed
    assert contents(folder / "out") == expected


@pytest.mark.parametrize("stage, kind", [("train", "cut"), ("classify", "gone"), ("assign", "cut")])
def test_a_stack_that_is_lost_stops_with_its_name_and_the_next_start_goes_on(data, whole, stage, kind):
    expected, folder = whole(stage)[1], data / "runs" / stage
    path = data / "stack" / "particles.mrcs"
    kept = path.read_bytes()
    try:
        status, _, printed = run(data, stage, folder, (kind, path.name, 1))
    finally:
        path.write_bytes(kept)
    assert status == 2 and "Traceback" not in printed
    assert f"error: {path}: " in printed and ("became shorter" in printed or "can't be read any more" in printed)
    status, _, printed = run(data, stage, folder)
    assert status == 0, printed
    assert contents(folder / "out") == expected


# --------------------------- corrupt rows ------------------------------------------------
def _replace(column, row, value):
    def spoil(text, table):
        old = text.splitlines()[-len(table) - 1:][row].split()
        new = [value if name == column else part for name, part in zip(table.columns, old)]
        return text.replace(" ".join(old), " ".join(new))
    return spoil


@pytest.mark.parametrize("spoil, words", [
    pytest.param(lambda text, table: text[: len(text) * 2 // 3].rsplit(" ", 3)[0], "particles.star, line", id="cut off"),
    pytest.param(_replace("rlnImageName", 4, "000999@STACK"), "particle row 5 asks for image 999", id="no such image"),
    pytest.param(_replace("rlnImageName", 4, "000003@gone.mrcs"), "gone.mrcs: this particle stack does not exist",
                 id="no such stack"),
    pytest.param(_replace("rlnDefocusU", 4, "12e3x"), "row 5 .*rlnDefocusU is not a number", id="no number"),
    pytest.param(_replace("rlnOpticsGroup", 4, "7"), "row 5: optics group 7 is not in the optics table", id="no such group"),
    pytest.param(lambda text, table: text.replace("0.1", "\0\0\0", 1), "particles.star, line .*not text", id="no text"),
    pytest.param(lambda text, table: text.replace("_rlnDefocusV", "_rlnDefocusU"), "rlnDefocusU occurs twice", id="twice"),
])
def test_corrupt_rows_are_named(data, tmp_path, capsys, spoil, words):
    source = data / "stack" / "particles.star"
    text = spoil(source.read_text(), read_star(source)["particles"])
    (tmp_path / "particles.star").write_text(text.replace("STACK", str(data / "stack" / "particles.mrcs")))
    arguments = [str(tmp_path / "particles.star") if part == str(source) else part for part in commands(data)["classify"]]
    assert main([*arguments, "--out", str(tmp_path / "out"), *ONE_THREAD]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    pytest.raises(InputError, _fail, error).match(words)


def _fail(text):
    raise InputError(text)


# --------------------------- models with other bytes -------------------------------------
class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def _bombs(tmp_path):
    """Files that would run code if any part of them were unpickled freely."""
    bomb = Bomb(str(tmp_path / "exploded"))
    (tmp_path / "plain").write_bytes(pickle.dumps(bomb))
    torch.save({"network": bomb}, tmp_path / "zip")
    torch.save({"network": bomb}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with open(tmp_path / "array", "wb") as stream:
        np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)
    return {name: (tmp_path / name).read_bytes() for name in ("plain", "zip", "old", "array")}


@pytest.mark.parametrize("command, option, ending, kinds", [
    ("pick", "--model", "safetensors", ["plain", "zip"]),
    ("train-picker", "--model", "safetensors", ["plain"]),
    ("train", "--model", "safetensors", ["zip"]),
    ("classify", "--model", "safetensors", ["old"]),
    ("evaluate", "--embeddings", "npy", ["plain", "zip", "array"]),
])
def test_no_file_that_is_read_runs_code(data, tmp_path, capsys, command, option, ending, kinds):
    particles, bombs = str(data / "stack" / "particles.star"), _bombs(tmp_path)
    arguments = {
        "pick": ["pick", "--micrographs", str(data / "mics" / "micrographs.star")],
        "train-picker": commands(data)["train-picker"][:-1],
        "train": ["train", "--particles", particles],
        "classify": commands(data)["classify"],
        "evaluate": ["evaluate", "embedding", "--particles", particles, "--truth", str(data / "stack" / "truth.star")],
    }[command]
    for kind in kinds:
        path = tmp_path / f"{kind}.{ending}"
        path.write_bytes(bombs[kind])
        assert main([*arguments, option, str(path), "--out", str(tmp_path / "out"), *ONE_THREAD]) == 2
        error = capsys.readouterr().err
        assert path.name in error and "Traceback" not in error
        assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["plain", "zip", "old", "array"])
def test_backbones_run_no_code(tmp_path, kind):
    path = tmp_path / "backbone.pth"
    path.write_bytes(_bombs(tmp_path)[kind])
    with pytest.raises(InputError, match="backbone.pth"):
        load_backbone(path, 50)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("stage, name, kind", [
    ("train-picker", "checkpoint.pt", "zip"), ("train", "checkpoint.safetensors", "plain"),
    ("classify", "state.safetensors", "zip"), ("assign", "calibration.safetensors", "plain")])
def test_a_checkpoint_with_other_bytes_is_refused_and_runs_no_code(data, whole, tmp_path, stage, name, kind):
    written, _ = whole(stage)
    folder = data / "runs" / stage
    assert run(data, stage, folder, ("kill", written.index(name) + 2))[0] == -signal.SIGKILL
    next((folder / "out").rglob(name)).write_bytes(_bombs(tmp_path)[kind])
    status, _, printed = run(data, stage, folder)
    assert status == 2 and name in printed and "Traceback" not in printed
    assert not (tmp_path / "exploded").exists()


# --------------------------- memory ------------------------------------------------------
def test_batches_shrink_where_the_memory_ends_and_stay_small():
    tried, room = [], Room(200)

    def compute(rows):
        tried.append(rows.stop - rows.start)
        if tried[-1] > 12:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return list(range(rows.start, rows.stop))

    # Rows take 5 of the room each.
    assert sum(room.batches(compute, 50, 5), []) == list(range(50))
    assert tried == [40, 20, 10, 10, 10, 10, 10]
    tried.clear()
    assert sum(room.batches(compute, 25, 5), []) == list(range(25)) and tried == [10, 10, 5]
    assert list(room.batches(lambda rows: rows, 0)) == [slice(0, 0)]
    # A batch that is smaller than the room is halved itself; a row alone is not.
    tried.clear()
    assert sum(Room(1000).batches(compute, 16), []) == list(range(16)) and tried == [16, 8, 8]
    with pytest.raises(torch.OutOfMemoryError):
        list(Room(4).batches(lambda rows: compute(slice(0, 99)), 4))


def test_work_inside_work_shrinks_both():
    room = Room(64)

    def outer(rows):
        inner = list(room.batches(lambda part: part.stop - part.start, rows.stop - rows.start, 32))
        if rows.stop - rows.start > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sum(inner)

    assert sum(room.batches(outer, 8, 4)) == 8
    assert room.size == 8


def test_parts_have_the_gradient_of_the_whole():
    torch.manual_seed(0)
    network, batch = torch.nn.Conv2d(1, 3, 3).double(), torch.randn(7, 1, 6, 6, dtype=torch.float64)
    gradients, computed = [], []

    def compute(part):
        computed.append(len(part))
        return network(part).tanh()

    for rows in (7, 3):
        network.zero_grad()
        # All rows are compared with one another.
        in_parts(compute, batch, rows).flatten(1).cov().logsumexp(1).sum().backward()
        gradients.append(network.weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)
    assert computed == [7, 3, 3, 1, 1, 3, 3]


def _short_of_memory(real, size_of, limit):
    def compute(*arguments, **options):
        if size_of(*arguments, **options) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*arguments, **options)
    return compute


def test_embedding_takes_smaller_batches_where_memory_is_short(data, tmp_path, monkeypatch):
    out = tmp_path / "train"
    assert main([*commands(data)["train"], "--out", str(out), *ONE_THREAD]) == 0
    particles = read_particles(data / "stack" / "particles.star")
    expected = inference.embed(out / "embedding.safetensors", particles)
    monkeypatch.setattr(inference, "to_images", _short_of_memory(inference.to_images, len, 7))
    np.testing.assert_allclose(inference.embed(out / "embedding.safetensors", particles), expected, atol=1e-6)


def test_picking_takes_smaller_tiles_where_memory_is_short(data, tmp_path, monkeypatch):
    arguments = commands(data)["pick"]
    assert main([*arguments, "--out", str(tmp_path / "a"), *ONE_THREAD]) == 0
    size = scoring._inputs(slice(0, 40), load_picker_architecture(data))
    limit = (size.stop - size.start) ** 2
    monkeypatch.setattr(scoring, "score_window",
                        _short_of_memory(scoring.score_window, lambda network, window, turns: window.numel(), limit))
    assert main([*arguments, "--out", str(tmp_path / "b"), *ONE_THREAD]) == 0
    tables = [next(iter(read_star(tmp_path / name / "candidates.star").values())) for name in "ab"]
    pd.testing.assert_frame_equal(tables[0], tables[1], atol=1e-4, check_exact=False)


def load_picker_architecture(data):
    from siamese2d_engine.picking.model import load_picker

    return load_picker(data / "picker" / "picker.safetensors", torch.device("cpu")).network.architecture


# Where the largest temporary arrays of a stage are made, by which arguments, and what of them fits.
SHORT = {
    "classify": [(passes, "best_over_rotations", lambda parts, *_: parts[0].shape[1], 7),
                 (assignment, "best_over_rotations", lambda parts, *_: parts[0].shape[1], 7),
                 (passes, "aligned_harmonics", lambda images, index, *_, **mirrored: len(index), 40),
                 (fit, "aligned_harmonics", lambda images, index, *_: len(index), 20),
                 (prepare, "fourier_crop", lambda images, box: len(images), 30),
                 (realspace, "align_images", lambda images, *_: len(images), 30)],
    "assign": [(assignment, "best_over_rotations", lambda parts, *_: parts[0].shape[1], 7),
               (assignment, "aligned_harmonics", lambda images, index, *_: len(index), 40),
               (fit, "aligned_harmonics", lambda images, index, *_: len(index), 20),
               (prepare, "fourier_crop", lambda images, box: len(images), 30),
               (realspace, "align_images", lambda images, *_: len(images), 30)],
}
# Of poses that are peaks of sums whose last digits differ. The passes of ``classify`` amplify that: in 3 of 48 sets, images
# changed by 2e-7 of their values end up to 3 degrees from where they were.
POSES = {"classify": {"rlnAnglePsi": 5.0, "rlnOriginXAngst": 1.5, "rlnOriginYAngst": 1.5},
         "assign": {"rlnAnglePsi": 0.02, "rlnOriginXAngst": 5e-3, "rlnOriginYAngst": 5e-3,
                    "rlnMaxValueProbDistribution": 1e-3, "siamese2dFit": 1e-3}}
# Of the averages, as a part of their largest value.
AVERAGES = {"classify": 0.3, "assign": 1e-3}
# Numbers of the largest array: a few images at a time.
SMALL = 2**14


@pytest.mark.parametrize("stage", SHORT)
def test_classes_are_the_same_from_smaller_parts_where_memory_is_short(data, tmp_path, monkeypatch, capsys, stage):
    arguments = [*commands(data)[stage], *ONE_THREAD]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    short, calls = [*arguments, "--out", str(tmp_path / "b")], iter(range(10**6))
    with monkeypatch.context() as patch:
        # For good, in the middle of the work.
        module = {"classify": passes, "assign": assignment}[stage]
        short_of_all = _short_of_memory(module.best_over_rotations, lambda *_: next(calls), 1)
        patch.setattr(module, "best_over_rotations", short_of_all)
        assert main(short) == 2
    assert "GPU's memory is not enough" in capsys.readouterr().err
    for module, name, size_of, limit in SHORT[stage]:
        monkeypatch.setattr(module, name, _short_of_memory(getattr(module, name), size_of, limit))
    additions = iter(range(10**6))
    # What has been added to the sums is not added again.
    monkeypatch.setattr(averages.Sums, "add", _short_of_memory(averages.Sums.add, lambda *_: -next(additions), -1))
    assert main(short) == 0
    warnings = json.loads((tmp_path / "b" / "run.json").read_text())["warnings"]
    assert sum("smaller parts" in warning for warning in warnings) == 1
    one, two = (read_star(tmp_path / name / "particles.star")["particles"] for name in "ab")
    assert (one[["rlnImageName", "rlnClassNumber"]] == two[["rlnImageName", "rlnClassNumber"]]).all(axis=None)
    for column, tolerance in POSES[stage].items():
        difference = (one[column].astype(float) - two[column].astype(float)).to_numpy()
        difference = (difference + 180) % 360 - 180 if column == "rlnAnglePsi" else difference
        assert np.abs(difference).max() < tolerance, column
    classes = [mrcfile.read(tmp_path / name / "classes.mrcs") for name in "ab"]
    np.testing.assert_allclose(classes[1], classes[0], atol=AVERAGES[stage] * np.abs(classes[0]).max())


def test_every_pass_is_the_same_in_smaller_parts(data):
    """From the same state: what one pass leaves to rounding, others could amplify."""
    particles, cpu = read_particles(data / "stack" / "particles.star"), torch.device("cpu")
    mask = circular_mask(particles.box, particles.pixel_size, None)
    rings = number_of_rings(mask, particles.pixel_size, None)
    polar = prepare.transform(particles.images, ctf_parameters(particles), mask, rings, particles.pixel_size, cpu, None)
    whole, short = (Classifier(polar, schedule(3, 7, rings, True, Recipe()), 3.0, 0, cpu) for _ in range(2))
    short.room = Room(SMALL)
    states = [whole.start()]
    whole.run(states[0], states.append)
    for before, after in zip(states, states[1:]):
        found = short._pass(before, short.schedule.steps(before.history))
        assert torch.equal(found.poses.classes[:, 0], after.poses.classes[:, 0])
        turned = (found.poses.psi - after.poses.psi + np.pi)[:, 0] % (2 * np.pi) - np.pi
        assert turned.abs().max() < np.radians(0.01)
        for one, two in ((found.poses.shifts[:, 0], after.poses.shifts[:, 0]), (found.offsets, after.offsets),
                         (found.averages, after.averages), (found.scores, after.scores)):
            finite = two.abs()[two.abs().isfinite()]
            torch.testing.assert_close(one, two, rtol=0, atol=1e-4 * float(finite.max().clamp_min(1e-3)))


@pytest.mark.parametrize("more", [[], ["--autoencoder", "0.1"]])
def test_picker_training_is_the_same_in_parts_where_memory_is_short(data, tmp_path, monkeypatch, more):
    arguments = [*commands(data)["train-picker"], "--crops", "2", "--seed", "1", *more, *ONE_THREAD]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    monkeypatch.setattr(PickerNetwork, "features",
                        _short_of_memory(PickerNetwork.features, lambda network, images: len(images), 1))
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 0
    warnings = json.loads((tmp_path / "b" / "run.json").read_text())["warnings"]
    assert sum("smaller parts" in warning for warning in warnings) == 1
    losses = [[epoch["loss"] for epoch in json.loads((tmp_path / name / "training.json").read_text())["epochs"]]
              for name in "ab"]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_training_an_embedding_says_which_option_to_lower(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks.SteerableNetwork, "forward", _short_of_memory(None, lambda *_: 1, 0))
    assert main([*commands(data)["train"], "--out", str(tmp_path / "out"), *ONE_THREAD]) == 2
    assert "--batch-size 32: the GPU's memory is not enough" in capsys.readouterr().err


@pytest.mark.parametrize("stage, place, error", [
    ("train", "embedding.training._train_epoch", torch.OutOfMemoryError("CUDA out of memory.")),
    ("train-picker", "picking.stage.run_epochs", torch.OutOfMemoryError("CUDA out of memory.")),
    ("classify", "classify.stage.transform", torch.OutOfMemoryError("CUDA out of memory.")),
    ("pick", "picking.scoring.score_window", torch.OutOfMemoryError("CUDA out of memory.")),
    ("extract", "extraction.stage.read_image", MemoryError()),
])
def test_memory_that_is_not_enough_for_anything_is_one_message(data, tmp_path, capsys, monkeypatch, stage, place, error):
    words = "memory of this machine" if isinstance(error, MemoryError) else "GPU's memory is not enough"

    def short(*arguments, **options):
        raise error

    monkeypatch.setattr(f"siamese2d_engine.{place}", short)
    assert main([*commands(data)[stage], "--out", str(tmp_path / "out"), *ONE_THREAD]) == 2
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told
    assert words in json.loads((tmp_path / "out" / "run.json").read_text())["message"]


def test_a_worker_that_fails_ends_the_loop_and_drops_what_has_not_started():
    started = []

    def work(item):
        started.append(item)
        if item == 3:
            raise MemoryError
        return item

    done = []
    with pytest.raises(MemoryError):
        for item in parallel_map(work, range(1000), 2):
            done.append(item)
    assert done == [0, 1, 2] and len(started) < 1000


# --------------------------- clocks ------------------------------------------------------
@pytest.mark.parametrize("stage", ["normalize", "train"])
def test_clocks_that_jump_change_nothing(data, whole, stage):
    expected, folder = whole(stage)[1], data / "runs" / stage
    status, _, printed = run(data, stage, folder, ("clock",))
    assert status == 0, printed
    assert contents(folder / "out") == expected


def test_inputs_from_the_future_are_inputs_like_others(data, whole):
    expected, folder = whole("normalize")[1], data / "runs" / "normalize"
    path = data / "mics" / "micrographs" / "simulated_001.mrc"
    before = path.stat()
    os.utime(path, (2**32, 2**32))
    try:
        assert run(data, "normalize", folder, ("kill", 4))[0] == -signal.SIGKILL
        assert run(data, "normalize", folder)[0] == 0
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert contents(folder / "out") == expected
