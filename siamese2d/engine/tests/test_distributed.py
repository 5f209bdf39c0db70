"""Two processes give what one gives, and the failure of one ends both with one message."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from siamese2d_engine import devices, distributed
from siamese2d_engine.classify import assign_stage
from siamese2d_engine.cli.main import main
from siamese2d_engine.data_parallel import in_parallel
from siamese2d_engine.devices import available_threads, resolve_device
from siamese2d_engine.embedding import centring_network
from siamese2d_engine.embedding.backbone_network import SimSiam
from siamese2d_engine.embedding.losses import nt_xent_loss, simsiam_loss
from siamese2d_engine.embedding.networks import build_network
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.star import read_star

SECONDS = 300
QUICK_PICKER = ["--diameter", "40", "--network", "small", "--epochs", "2", "--steps", "4", "--crops", "1", "--windows", "5",
                "--learning-rate", "5e-3"]
# The command line, one run after the other in the same processes, with small blocks of particles.
COMMANDS = """
    import json, sys
    from siamese2d_engine import distributed
    from siamese2d_engine.classify import assign_stage
    from siamese2d_engine.cli.main import build_parser
    from siamese2d_engine.embedding import centring_network
    sys.path.insert(0, {tests!r})
    from test_distributed import BLOCK, CENTRING_STEPS, trained_in_float64

    assign_stage.BLOCK, centring_network.STEPS = BLOCK, CENTRING_STEPS
    with distributed.session():
        trained_in_float64("float64-2.pt")
        for arguments in json.load(open("commands.json")):
            args = build_parser(arguments[0]).parse_args(arguments)
            args.run_command(args)
"""
BLOCK, CENTRING_STEPS = 32, 10
# A run whose second process fails in the middle in one of two ways.
FAILING = """
    import os, signal, sys, torch
    from siamese2d_engine import distributed
    from siamese2d_engine.cli import main
    from siamese2d_engine.errors import InputError
    from siamese2d_engine.runs import Run

    def fails(args):
        with Run("failed", "classify", {{}}):
            distributed.wait()
            if distributed.rank() == 1:
                if {how!r} == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise InputError("stack.mrcs: the file became shorter.")
            distributed.add(torch.zeros(3))

    class Namespace:
        run_command = staticmethod(fails)

    main._parsed = lambda asked, arguments: Namespace
    sys.exit(main.main(["classify"]))
"""


def launch(script: str, folder: Path, torchrun: bool = False) -> tuple[list[int], str]:
    """Run a script in two processes, started here (sooner) or by torchrun: exit codes and what they say of errors."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    if torchrun:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
        return [done.returncode], done.stderr
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = [subprocess.Popen([sys.executable, str(path)], cwd=folder, env={**environment, "RANK": str(rank)},
                                  stderr=subprocess.PIPE, text=True) for rank in range(2)]
    try:
        said = "".join(process.communicate(timeout=SECONDS)[1] for process in processes)
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def trained_in_float64(path: str) -> None:
    """Weights and vectors after some steps of two networks with batch normalisation."""
    found = {}
    for name, box in (("steerable", 16), ("resnet18", 8)):
        torch.manual_seed(0)
        network = build_network(name, {"working_box": box, "dimensions": 6})
        network = (SimSiam(network, 6) if name == "resnet18" else network).double()
        shared = in_parallel(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        images = torch.randn(10, box, box, dtype=torch.float64)
        for step in range(3):
            shared.train()
            vectors = shared(images + 0.1 * step)
            loss = (nt_xent_loss(*vectors.chunk(2), 0.2) if name == "steerable" else
                    simsiam_loss(vectors[0].chunk(2), vectors[1].chunk(2)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shared.eval()
        with torch.no_grad():
            vectors = shared(images)
        found |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        found[f"{name} vectors"] = vectors if name == "steerable" else vectors[0]
    if distributed.is_main():
        torch.save(found, path)


def micrographs(folder: Path) -> None:
    """Three of dark blobs in noise, with some labels."""
    labels = []
    rows, columns = np.mgrid[:170, :190]
    for number in range(3):
        rng = np.random.default_rng(number)
        image = rng.normal(100, 10, size=rows.shape)
        for x, y in ((i * 46 + rng.uniform(20, 40), j * 44 + rng.uniform(20, 40)) for i in range(4) for j in range(3)):
            image -= 18 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.5 ** 2))
            labels.append((f"m{number}", x, y))
        write_mrc(folder / "mics" / f"m{number}.mrc", image.astype(np.float32), 2.0)
    pd.DataFrame(labels, columns=["micrograph", "x", "y"]).to_csv(folder / "labels.csv", index=False)


def commands(processes: int) -> list[list[str]]:
    """The stages that processes share; those that use results of others use those of one process."""
    stages = {
        "train": ["--particles", "sim/particles.star", "--epochs", "2", "--working-box", "16", "--mode", "contrastive",
                  "--rounds", "2", "--classes", "4"],
        "classify": ["--particles", "sim/particles.star", "--classes", "4", "--model", "train-1/embedding.safetensors"],
        "assign": ["--particles", "sim/particles.star", "--classes", "classify-1/classes.star", "--new-averages"],
        "train-picker": ["--micrographs", "mics", "--coordinates", "labels.csv", *QUICK_PICKER],
        "pick": ["--micrographs", "mics", "--model", "train-picker-1/picker.safetensors"],
    }
    return [[stage, *arguments, "--out", f"{stage}-{processes}", "--threads", "1"] for stage, arguments in stages.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of all stages by one process and by two."""
    folder, patch = tmp_path_factory.mktemp("shared"), pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr(assign_stage, "BLOCK", BLOCK)
    patch.setattr(centring_network, "STEPS", CENTRING_STEPS)
    assert main(["simulate", "particles", "--out", "sim", "--particles", "100", "--box", "24", "--pixel-size", "10", "--snr",
                 "1", "--threads", "1"]) == 0
    micrographs(folder)
    for arguments in commands(1):
        assert main(arguments) == 0
    trained_in_float64("float64-1.pt")
    (folder / "commands.json").write_text(json.dumps(commands(2)))
    codes, said = launch(COMMANDS.format(tests=str(Path(__file__).parent)), folder)
    assert codes == [0, 0], said[-3000:]
    yield folder
    patch.undo()


def tables(folder, stage, name):
    """A table by one process and by two."""
    both = [list(read_star(folder / f"{stage}-{number}" / name).values())[-1] for number in (1, 2)]
    assert len(both[0]) == len(both[1])
    return both


@pytest.mark.parametrize("stage", ["classify", "assign"])
def test_classes_and_poses_are_those_of_one_process(folder, stage):
    one, two = tables(folder, stage, "particles.star")
    assert (one["rlnImageName"] == two["rlnImageName"]).all()
    assert (one["rlnClassNumber"].astype(int) == two["rlnClassNumber"].astype(int)).all()
    # Sums over images in another order differ in the last of some seven digits; poses follow from peaks of these sums.
    for column, tolerance in (("rlnAnglePsi", 0.02), ("rlnOriginXAngst", 5e-3), ("rlnOriginYAngst", 5e-3),
                              ("rlnMaxValueProbDistribution", 1e-3), ("siamese2dFit", 1e-3)):
        difference = (one[column].astype(float) - two[column].astype(float)).to_numpy()
        if column == "rlnAnglePsi":
            difference = (difference + 180) % 360 - 180
        assert np.abs(difference).max() < tolerance, column
    classes = [np.fromfile(folder / f"{stage}-{number}" / "classes.mrcs", np.float32)[256:] for number in (1, 2)]
    np.testing.assert_allclose(classes[1], classes[0], atol=1e-3 * np.abs(classes[0]).max())
    numbers = [json.loads((folder / f"{stage}-{number}" / "run.json").read_text())["results"] for number in (1, 2)]
    assert numbers[0] == numbers[1]


def test_only_the_main_process_writes_and_says_how_many_there_were(folder):
    record = json.loads((folder / "classify-2" / "run.json").read_text())
    assert record["status"] == "finished" and record["processes"] == 2
    assert sorted(p.name for p in (folder / "classify-2").iterdir()) == sorted(
        p.name for p in (folder / "classify-1").iterdir())


def test_training_steps_are_those_of_one_process(folder):
    # In double precision nothing amplifies rounding enough to hide a wrong gradient or statistic.
    one, two = (torch.load(folder / f"float64-{number}.pt") for number in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-7, atol=1e-8, msg=name)


def test_embedding_training_follows_one_process(folder):
    # In single precision Adam divides gradients that are nothing but rounding by their own size, so that only losses,
    # not weights, stay close; two numbers of threads differ as much.
    one, two = (json.loads((folder / f"train-{number}" / "training.json").read_text())["epochs"] for number in (1, 2))
    assert [(epoch["round"], epoch["epoch"]) for epoch in one] == [(epoch["round"], epoch["epoch"]) for epoch in two]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.05)
    vectors = np.load(folder / "train-2" / "embeddings.npy")
    assert vectors.shape == np.load(folder / "train-1" / "embeddings.npy").shape and np.isfinite(vectors).all()


def test_picker_training_follows_one_process(folder):
    one, two = (json.loads((folder / f"train-picker-{number}" / "training.json").read_text()) for number in (1, 2))
    losses = [[epoch["loss"] for epoch in record["epochs"]] for record in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert two["threshold"] == pytest.approx(one["threshold"], abs=0.01)


def test_picks_are_those_of_one_process(folder):
    one, two = tables(folder, "pick", "candidates.star")
    assert len(one) and (one["rlnMicrographName"] == two["rlnMicrographName"]).all()
    for column in ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"):
        np.testing.assert_allclose(two[column].astype(float), one[column].astype(float), atol=1e-4)


@pytest.mark.parametrize("how, message, torchrun", [("error", "stack.mrcs: the file became shorter.", True),
                                                    ("killed", distributed.LOST, False)])
def test_failure_of_one_process_ends_all_with_one_message(tmp_path, how, message, torchrun):
    codes, said = launch(FAILING.format(how=how), tmp_path, torchrun)
    assert all(codes)
    assert said.count(f"siamese2d-engine: error: {message}") == 1
    assert said.count("siamese2d-engine: error:") == 1
    record = json.loads((tmp_path / "failed" / "run.json").read_text())
    assert record["status"] == "failed" and record["message"] == message


@pytest.mark.parametrize("items", [list(range(7)), np.arange(3), torch.arange(12), range(2)])
@pytest.mark.parametrize("processes", [1, 3, 5])
def test_shares_are_all_of_it_once(monkeypatch, items, processes):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    shares = []
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        shares.append([int(item) for item in distributed.share(items)])
    assert sum(shares, []) == [int(item) for item in items]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_cannot_be_shared_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["check"]) == 2
    assert "check runs as one process" in capsys.readouterr().err
    for device in ("cuda:0", "cuda:0,0", "cuda:0,1,2"):
        with pytest.raises(InputError, match="need a GPU each"):
            resolve_device(device)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(InputError, match="several machines"):
        distributed._require_one_machine()


@pytest.mark.parametrize("name, own", [("cuda", "cuda:1"), ("cuda:0,3", "cuda:3"), ("cuda:2 0", "cuda:0"), ("cpu", "cpu")])
def test_each_process_gets_its_gpu(monkeypatch, name, own):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(devices, "available_devices", lambda: ["cpu", *(f"cuda:{number}" for number in range(4))])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert str(resolve_device(name)) == own


def test_processors_are_dealt(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert available_threads() == 2
