"""What came out, beside what is true: tables of accuracy, time and memory, and one picture."""

import json
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
from emtable import Table

from siamese2d.viewers.plots.class_averages import plot_class_averages

from inputs import DemoInput
from workflow import stage_folder

STAGES = {"normalize": "normalize", "pick without labels": "pick-unlabeled", "extract first picks": "extract",
          "classify first picks": "classify", "train picker": "train-picker", "pick": "pick",
          "extract": "extract", "train embedding": "train", "classify": "classify"}
MATCH_RADIUS_SHARE = 0.4  # of the particle diameter: nearer than that, a pick and a true centre are the same particle


def print_time_and_memory(runs: dict) -> None:
    """One line per stage: the protocol's wall time, and the engine's own CPU time and peak memory."""
    print(f"\n{'stage':<22}{'wall s':>8}{'engine CPU s':>14}{'peak MB':>9}")
    for stage, protocol in runs.items():
        record = _record(protocol, STAGES[stage]) if stage in STAGES else None
        cpu, memory = (f"{record['cpu_seconds']:.0f}", f"{record['peak_memory_mb']:.0f}") if record else ("-", "-")
        print(f"{stage:<22}{protocol.getElapsedTime().total_seconds():>8.0f}{cpu:>14}{memory:>9}")


def evaluate(engine: str, runs: dict, source: DemoInput, folder: Path) -> dict:
    """Measure picks and classes with ``siamese2d-engine evaluate``; returns its JSON results by name."""
    picks = stage_folder(runs["pick"], "pick") / "candidates.star"
    training = stage_folder(runs["train picker"], "train-picker") / "training.json"
    diameter = json.loads(training.read_text())["diameter"]
    radius = MATCH_RADIUS_SHARE * diameter / source.pixel_size
    tested = _write_names(folder / "tested.star", source.test_micrographs)
    results = {}
    for name, truth in source.truths.items():
        results[f"picks against {name}"] = _evaluate(
            engine, "picks", folder / f"picks_{name.replace(' ', '_')}", "--coordinates", picks, "--truth", truth,
            "--radius", radius, "--micrographs", tested)
    if source.species_truth:
        particles = stage_folder(runs["classify"], "classify") / "particles.star"
        results["classes"] = _evaluate(engine, "classes", folder / "classes", "--particles", particles, "--truth",
                                       source.species_truth, "--radius", radius)
    return results


def print_accuracy(results: dict) -> None:
    """The few numbers that tell whether it worked."""
    print()
    for name, result in results.items():
        if name == "classes":
            print(f"class purity (species)                 {result['purity']:.3f}")
            spread = result["spread_mirror"]
            print("angular spread in a class, mean        "
                  + ("unknown: no true directions, or no class with several particles" if spread is None else
                     f"{spread:.1f} degrees (a view and its mirror as one)"))
        else:
            print(f"{name:<38} average precision {result['average_precision']:.3f}, best F1 {result['best_f1']:.3f}, "
                  f"centre error {result['rms_error']:.1f} px rms")


def save_picture(runs: dict, path: Path) -> Path:
    """Class averages sorted by size, as one PNG."""
    folder = stage_folder(runs["classify"], "classify")
    rows = list(Table(fileName=str(folder / "classes.star"), tableName="classes"))
    with mrcfile.open(folder / "classes.mrcs", mode="r") as mrc:
        averages = np.array(mrc.data)
    positions = [int(row.rlnReferenceImage.split("@")[0]) - 1 for row in rows]
    figure = plot_class_averages(averages[positions], [int(row.siamese2dClassSize) for row in rows],
                                 [float(row.rlnEstimatedResolution) for row in rows], title="Class averages, by size",
                                 pixel_size=runs["classify"].outputAverages.getSamplingRate())
    figure.savefig(path, dpi=150)
    return path


def _record(protocol, stage: str) -> dict:
    return json.loads((stage_folder(protocol, stage) / "run.json").read_text())


def _evaluate(engine: str, what: str, out: Path, *arguments) -> dict:
    command = [engine, "evaluate", what, "--out", out, "--overwrite", *arguments]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "evaluation.json").read_text())


def _write_names(path: Path, names: list[str]) -> Path:
    lines = ["data_micrographs", "", "loop_", "_rlnMicrographName #1", *names, ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path
