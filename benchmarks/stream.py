#!/usr/bin/env python
"""Whether the chain from micrographs to 2D classes keeps up with a microscope, in a real Scipion project.

Run it with Scipion's Python and settings, as ``make demo`` runs its script::

    python -m scipion python benchmarks/stream.py --work FOLDER --out stream.json [--minutes 5] [--interrupt]

An earlier session of ten simulated micrographs gives a picker and 2D classes; it is kept and used again. Then
micrographs of 4096 x 4096 pixels with 300 particles each are put one by one into a folder that Scipion's *import
micrographs* watches, while *normalize*, *pick*, *extract* and *assign*, scheduled together, work with the defaults of
their forms. There are 20 of them; a longer session shows them again under new names. ``--interrupt`` stops the four
protocols in the middle, and continues them 20 s later (what a stopped engine had used is not in the CPU seconds).

Printed are, by the minute in which micrographs arrived, the mean seconds until all of a micrograph went through each
protocol; what each protocol cost; and whether the delay grows. At the end everything is counted: no micrograph, pick or
particle may be lost or twice.
"""

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from pwem.protocols import ProtImportMicrographs
from pyworkflow.project import Manager
from pyworkflow.protocol import MODE_RESUME, STATUS_FINISHED

from siamese2d.constants import ITEM_ID
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtImportCoordinates, Siamese2DProtNormalize, Siamese2DProtPick,
                                 Siamese2DProtTrainPicker)
from siamese2d.protocols.protocol_base import RECORD, readReport
from siamese2d.protocols.protocol_extract import OTHER
from siamese2d.protocols.protocol_streaming_base import ITEMS, PUBLISHED
from siamese2d.star import readTable
from siamese2d.tests.layer import simulateMicrographs

PROJECT = "siamese2d_stream"
EARLIER, CLASSES = 10, 50
PIXEL_SIZE, DIAMETER = 1.0, 150.0
SIMULATION = dict(micrographs=30, size=4096, pixel_size=PIXEL_SIZE, diameter=DIAMETER, particles_per_micrograph=300,
                  labels=200)
ACQUISITION = dict(samplingRate=PIXEL_SIZE, voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1)
NORMALIZED, BOX, SMALLER = 4.0, 240, 3.75
STAGES = ("normalize", "pick", "extract", "assign")
PAUSE_SECONDS, LOOK_SECONDS = 20, 1.0
# A chain whose delay grows by less than this in a minute keeps up: how full a batch is makes that much by chance.
TOLERANCE_SECONDS = 5.0


class Chain:
    """Protocols of the benchmark's project, by name."""

    def __init__(self, threads: int):
        self._threads = threads
        manager = Manager()
        self.project = manager.loadProject(PROJECT) if manager.hasProject(PROJECT) else manager.createProject(PROJECT)
        os.chdir(self.project.path)
        self.runs = {run.getObjLabel(): run for run in self.project.getRuns() if run.getStatus() == STATUS_FINISHED}

    def prepare(self, name: str, protocol_class, **parameters):
        """A protocol with these parameters; a pair of a protocol's name and an output is an input."""
        protocol = self.project.newProtocol(protocol_class)
        protocol.setObjLabel(name)
        if protocol.allowsGpu():
            protocol.useGpu.set(False)
        threads = "binThreads" if protocol.hasAttribute("binThreads") else "numberOfThreads"
        if protocol.hasAttribute(threads):
            getattr(protocol, threads).set(self._threads)
        for parameter, value in parameters.items():
            if isinstance(value, tuple):
                getattr(protocol, parameter).set(self.runs[value[0]])
                getattr(protocol, parameter).setExtended(value[1])
            else:
                getattr(protocol, parameter).set(value)
        self.project.saveProtocol(protocol)
        self.runs[name] = protocol
        return protocol

    def once(self, name: str, protocol_class, **parameters) -> None:
        """Run a protocol to its end, unless it was run before."""
        if name in self.runs:
            return
        print(f"{name} ...", flush=True)
        protocol = self.prepare(name, protocol_class, **parameters)
        self.project.launchProtocol(protocol, wait=True)
        if protocol.getStatus() != STATUS_FINISHED:
            raise SystemExit(f"{name} failed: {protocol.getErrorMessage()}\nIts log: {protocol.getStdoutLog()}")


def normalize(make: Callable, session: str) -> None:
    """The first protocol behind an import; `make` is a method of `Chain`, `session` goes before all names."""
    make(f"{session}normalize", Siamese2DProtNormalize, downsample=NORMALIZED,
         inputMicrographs=(f"{session}import", "outputMicrographs"))


def pick_and_extract(make: Callable, session: str) -> None:
    """The next two, with the earlier session's picker; see `normalize`."""
    make(f"{session}pick", Siamese2DProtPick, inputMicrographs=(f"{session}normalize", "outputMicrographs"),
         inputPicker=("earlier picker", "outputPicker"))
    make(f"{session}extract", Siamese2DProtExtract, inputCoordinates=(f"{session}pick", "outputCoordinates"),
         micrographsSource=OTHER, inputMicrographs=(f"{session}import", "outputMicrographs"), boxSize=BOX,
         downsample=SMALLER)


def earlier_session(chain: Chain, simulated: Path) -> None:
    """The picker and the classes that the live session starts from."""
    folder = links(simulated.parent / "earlier", sorted((simulated / "micrographs").glob("*.mrc"))[:EARLIER])
    chain.once("earlier import", ProtImportMicrographs, filesPath=str(folder), filesPattern="*.mrc", **ACQUISITION)
    normalize(chain.once, "earlier ")
    chain.once("earlier labels", Siamese2DProtImportCoordinates, diameter=DIAMETER,
               inputMicrographs=("earlier import", "outputMicrographs"),
               coordinatesFile=str(simulated / "training_coordinates.star"))
    chain.once("earlier picker", Siamese2DProtTrainPicker, inputMicrographs=("earlier normalize", "outputMicrographs"),
               inputCoordinates=("earlier labels", "outputCoordinates"))
    pick_and_extract(chain.once, "earlier ")
    chain.once("earlier classes", Siamese2DProtClassify, inputParticles=("earlier extract", "outputParticles"),
               numberOfClasses=CLASSES)


def live_protocols(chain: Chain, watched: Path) -> None:
    """The import and the chain behind it, not yet started."""
    chain.prepare("import", ProtImportMicrographs, filesPath=str(watched), filesPattern="*.mrc", dataStreaming=True,
                  **ACQUISITION)
    normalize(chain.prepare, "")
    pick_and_extract(chain.prepare, "")
    chain.prepare("assign", Siamese2DProtAssign, inputParticles=("extract", "outputParticles"),
                  inputClasses=("earlier classes", "outputClasses"))


def links(folder: Path, files: list[Path]) -> Path:
    """A fresh folder with hard links to files."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for file in files:
        os.link(file, folder / file.name)
    return folder


class Microscope(threading.Thread):
    """Puts micrographs into a folder at a steady rate."""

    def __init__(self, folder: Path, files: list[Path], number: int, rate: float):
        super().__init__(daemon=True)
        self._folder, self._files, self._number, self._interval = folder, files, number, 60 / rate
        self.seconds, self.arrived = number * self._interval, {}

    def run(self):
        start = time.time()
        for index in range(self._number):
            time.sleep(max(start + index * self._interval - time.time(), 0))
            name = f"live_{index + 1:04d}.mrc"
            os.link(self._files[index % len(self._files)], self._folder / name)
            self.arrived[name] = time.time()


class Meter(threading.Thread):
    """CPU seconds of each protocol and of all that it starts, and the largest memory of all together."""

    def __init__(self, protocols: dict):
        super().__init__(daemon=True)
        self._databases = {name: protocol.getDbPath() for name, protocol in protocols.items()}
        self._seconds, self.peak, self._ended = {}, 0, threading.Event()

    def run(self):
        while not self._ended.wait(LOOK_SECONDS):
            roots = list(processes_of(self._databases))
            self.peak = max(self.peak, sum(memory(process) for _, root in roots for process in family(root)))
            for name, root in roots:
                # Includes the children that ended.
                self._seconds[name, root.pid] = cpu_seconds(root)

    def finish(self) -> dict:
        """CPU seconds by protocol."""
        self._ended.set()
        self.join()
        return {name: sum(seconds for (owner, _), seconds in self._seconds.items() if owner == name)
                for name in self._databases}


def processes_of(databases: dict):
    """Names of protocols, by the paths of their databases, with each process that schedules or runs them."""
    for process in psutil.process_iter(["cmdline"]):
        for name, database in databases.items():
            if database in (process.info["cmdline"] or ()):
                yield name, process


def family(process) -> list:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory(process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.NoSuchProcess:
        return 0


def cpu_seconds(process) -> float:
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0


def run_live(chain: Chain, microscope: Microscope, interrupt: bool) -> dict:
    """Start everything, wait until all is in classes, and return the measured costs."""
    protocols = {name: chain.runs[name] for name in ("import", *STAGES)}
    microscope.start()
    while not microscope.arrived:
        time.sleep(0.01)
    for protocol in protocols.values():
        chain.project.scheduleProtocol(protocol)
    meter = Meter(protocols)
    meter.start()
    if interrupt:
        microscope.join(microscope.seconds / 2)
        stop_and_continue(chain)
    microscope.join()
    protocols["import"].stopImport(None)
    databases = {name: protocol.getDbPath() for name, protocol in protocols.items()}
    while any(processes_of(databases)):
        time.sleep(LOOK_SECONDS)
    ended, cpu = time.time(), meter.finish()
    for name, protocol in protocols.items():
        chain.project._updateProtocol(protocol)
        if protocol.getStatus() != STATUS_FINISHED:
            raise SystemExit(f"{name} ended as {protocol.getStatus()}: {protocol.getErrorMessage()}\n"
                             f"Its log: {protocol.getStdoutLog()}")
    return {"seconds_after": ended - max(microscope.arrived.values()), "cpu_seconds": cpu,
            "peak_memory_mb": meter.peak / 2 ** 20}


def stop_and_continue(chain: Chain) -> None:
    """What a person does who stops the whole chain, and continues it later."""
    print(f"stopping all, to continue in {PAUSE_SECONDS} s", flush=True)
    chain.project._updateProtocol(chain.runs["import"])
    protocols = [chain.runs[name] for name in STAGES]
    for protocol in protocols:
        chain.project._updateProtocol(protocol)
        chain.project.stopProtocol(protocol)
    time.sleep(PAUSE_SECONDS)
    for protocol in protocols:
        protocol.runMode.set(MODE_RESUME)
        chain.project.launchProtocol(protocol, wait=False)


def published(protocol) -> dict:
    """When each input item got into the output."""
    times = {}
    for batch in protocol.getBatches():
        done = os.path.getmtime(protocol.getInputPath(batch, PUBLISHED))
        times.update(dict.fromkeys(readReport(protocol.getInputPath(batch, ITEMS))["items"], done))
    return times


def delays(chain: Chain, arrived: dict) -> dict:
    """Seconds from the arrival of each micrograph until all of it was through a stage, by stage."""
    ids = {mic.getObjId(): mic.getMicName() for mic in chain.runs["import"].outputMicrographs}
    micrograph_of = {item.getObjId(): item.getMicName() for item in chain.runs["pick"].outputCoordinates}
    found = {}
    for stage in STAGES:
        names = ids if stage in ("normalize", "pick") else micrograph_of
        last = {}
        for item, done in published(chain.runs[stage]).items():
            last[names[item]] = max(last.get(names[item], 0), done)
        found[stage] = {name: last[name] - arrived[name] for name in sorted(last)}
    return found


def count(chain: Chain) -> dict:
    """How many items each protocol took and made; stops when one is lost or twice."""
    imported, normalized = (ids(chain.runs[name].outputMicrographs) for name in ("import", "normalize"))
    check("micrographs", imported, normalized)
    picks, coordinates = rows(chain.runs["pick"], "coordinates.star"), ids(chain.runs["pick"].outputCoordinates)
    check("picks", list(range(len(picks))), [item - 1 for item in coordinates])
    particles = ids(chain.runs["extract"].outputParticles)
    extracted = [int(row[ITEM_ID]) for row in rows(chain.runs["extract"], "particles.star")]
    check("particles", extracted, particles)
    assign = chain.runs["assign"]
    members = [particle.getObjId() for cls in assign.outputClasses.iterItems() for particle in cls]
    apart = ids(assign.outputSetApart) if assign.hasAttribute("outputSetApart") else []
    check("assigned particles", particles, members + apart)
    return {"micrographs": len(normalized), "picks": len(coordinates), "particles": len(particles),
            "in classes": len(members), "set apart": len(apart)}


def ids(items) -> list[int]:
    return [item.getObjId() for item in items]


def rows(protocol, name: str) -> list:
    block = "particles" if name == "particles.star" else None
    return [row for batch in protocol.getBatches() for row in readTable(protocol.getStagePath(batch, name), block)]


def check(what: str, wanted: list, found: list) -> None:
    if sorted(wanted) != sorted(found):
        raise SystemExit(f"{what}: {len(set(wanted) - set(found))} of {len(wanted)} are lost, "
                         f"{len(found) - len(set(found))} are twice")


def falling_behind(minutes: list[dict]) -> float:
    """Seconds by which the delay grows from minute to minute, the first one left out, in which the protocols start."""
    later = minutes[1:]
    return float(np.polyfit([line["minute"] for line in later], [line[STAGES[-1]] for line in later], 1)[0])


def table(found: dict, arrived: dict) -> list[dict]:
    """Mean delays by the minute of arrival."""
    start, by_minute = min(arrived.values()), {}
    for name, when in arrived.items():
        by_minute.setdefault(int((when - start) // 60) + 1, []).append(name)
    return [{"minute": minute, "micrographs": len(names)}
            | {stage: statistics.mean(found[stage][name] for name in names if name in found[stage]) for stage in STAGES}
            for minute, names in by_minute.items()]


def costs(chain: Chain, cpu: dict, micrographs: int) -> list[dict]:
    """What each protocol took: the engine by its own records, all else is Scipion."""
    lines = [{"protocol": "import", "batches": 0, "engine": 0.0, "scipion": cpu["import"] / micrographs,
              "memory_mb": 0.0}]
    for stage in STAGES:
        protocol = chain.runs[stage]
        records = [readReport(protocol.getStagePath(batch, RECORD)) for batch in protocol.getBatches()]
        engine = sum(record["cpu_seconds"] for record in records)
        lines.append({"protocol": stage, "batches": len(records), "engine": engine / micrographs,
                      "scipion": (cpu[stage] - engine) / micrographs,
                      "memory_mb": max(record["peak_memory_mb"] for record in records)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the micrographs")
    parser.add_argument("--rate", type=float, default=10, help="micrographs a minute")
    parser.add_argument("--minutes", type=float, default=5, help="length of the session")
    parser.add_argument("--threads", type=int, default=2, help="threads of each protocol's engine")
    parser.add_argument("--interrupt", action="store_true", help="stop the protocols in the middle and continue them")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    work, out = args.work.resolve(), args.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    simulateMicrographs(str(work / "simulated"), **SIMULATION)
    chain = Chain(args.threads)
    earlier_session(chain, work / "simulated")
    watched = links(work / "watched", [])
    live_protocols(chain, watched)
    microscope = Microscope(watched, sorted((work / "simulated" / "micrographs").glob("*.mrc"))[EARLIER:],
                            round(args.rate * args.minutes), args.rate)
    costs_of_all = run_live(chain, microscope, args.interrupt)
    arrived = microscope.arrived
    report(args, chain, costs_of_all, arrived, out)


def report(args, chain: Chain, total: dict, arrived: dict, out: Path) -> None:
    """Print the tables, and write them as JSON."""
    found, counts = delays(chain, arrived), count(chain)
    minutes, lines = table(found, arrived), costs(chain, total["cpu_seconds"], len(arrived))
    slope = falling_behind(minutes)
    print(f"{len(arrived)} micrographs, {args.rate:g} a minute, {os.cpu_count()} processors, {args.threads} threads")
    print("Mean seconds from the arrival of a micrograph until all of it is through")
    print("minute  micrographs" + "".join(f"{stage:>11}" for stage in STAGES))
    for line in minutes:
        print(f"{line['minute']:6d} {line['micrographs']:12d}" + "".join(f"{line[stage]:11.0f}" for stage in STAGES))
    print(f"\n{'protocol':<12}{'batches':>8}{'CPU s a micrograph: engine':>28}{'Scipion':>9}{'engine, MB':>12}")
    for line in lines:
        print(f"{line['protocol']:<12}{line['batches']:8d}{line['engine']:28.2f}{line['scipion']:9.2f}"
              f"{line['memory_mb']:12.0f}")
    used = sum(line["engine"] + line["scipion"] for line in lines)
    verdict = "keeps up" if slope < TOLERANCE_SECONDS else "FALLS BEHIND"
    print(f"\nCPU seconds a micrograph, all      {used:.2f} ({used * args.rate:.0f} of {60 * os.cpu_count()} in a minute)")
    print(f"memory of all processes, at most   {total['peak_memory_mb']:.0f} MB")
    print(f"protocols end after the last one   {total['seconds_after']:.0f} s")
    print(f"the delay grows in a minute by     {slope:.1f} s: {verdict}")
    print("nothing is lost, nothing is twice: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    out.write_text(json.dumps({
        "rate": args.rate, "micrographs": len(arrived), "threads": args.threads, "processors": os.cpu_count(),
        "interrupted": args.interrupt, "delays": minutes, "costs": lines, "cpu_seconds_per_micrograph": used,
        "peak_memory_mb": total["peak_memory_mb"], "delay_growth_seconds_per_minute": slope,
        "seconds_after_last": total["seconds_after"], "counts": counts}, indent=1))


if __name__ == "__main__":
    main()
