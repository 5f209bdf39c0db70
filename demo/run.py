"""``make demo``: the main job end to end, in a real Scipion project, with a report."""

import argparse
import time
from pathlib import Path

import report
import workflow
from inputs import own, simulated

PROJECT = "siamese2d_demo"
CLASSES = 24


def optional(kind):
    """Argument type for values that make passes as an empty string when they are not given."""
    return lambda text: kind(text) if text else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True, help="siamese2d-engine of the managed environment")
    parser.add_argument("--work", type=Path, required=True, help="folder for inputs and the report")
    parser.add_argument("--data", type=optional(lambda text: Path(text).expanduser().resolve()))
    parser.add_argument("--pixel-size", type=optional(float))
    parser.add_argument("--coordinates", type=optional(lambda text: Path(text).expanduser().resolve()))
    parser.add_argument("--diameter", type=optional(float))
    args = parser.parse_args()

    started = time.monotonic()
    if args.data:
        folder = args.work / "own"
        source = own(args.data, args.pixel_size, args.coordinates, args.diameter or 0.0, folder)
    else:
        folder = args.work / "simulated"
        source = simulated(args.engine, folder)
    results = args.work / "report"
    project = workflow.create_project(PROJECT)
    runs = workflow.run_chain(project, source, CLASSES)

    report.print_time_and_memory(runs)
    report.print_accuracy(report.evaluate(args.engine, runs, source, results))
    picture = report.save_picture(runs, args.work / "class_averages.png")
    print(f"\nwall time of all                       {time.monotonic() - started:.0f} s")
    print(f"class averages, sorted by size         {picture}")
    print(f"open the project in Scipion's window   make gui   (project {PROJECT})")


if __name__ == "__main__":
    main()
