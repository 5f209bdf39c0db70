"""The main job as a Scipion project: protocols launched one after the other through Scipion's own machinery."""

import os
import threading
from pathlib import Path

from pyworkflow.project import Manager
from pyworkflow.protocol import STATUS_FINISHED

from pwem.protocols import ProtClassesSelector, ProtImportMicrographs
from siamese2d.protocols import (Siamese2DProtClassify, Siamese2DProtExtract, Siamese2DProtImportCoordinates,
                                 Siamese2DProtNormalize, Siamese2DProtPick, Siamese2DProtPickUnlabeled,
                                 Siamese2DProtTrainEmbedding, Siamese2DProtTrainPicker)

from inputs import DemoInput

POLL_SECONDS = 0.5
WORTH_SHOWING = (" %)", "warning:", "s left", ": epoch ")


def create_project(name: str):
    """A fresh Scipion project; an older one of the same name is removed. Changes into its folder, as Scipion needs."""
    manager = Manager()
    if manager.hasProject(name):
        manager.deleteProject(name)
    project = manager.createProject(name)
    os.chdir(project.path)
    return project


def run_chain(project, source: DemoInput, classes: int) -> dict:
    """Run micrographs -> classes.

    Returns
    -------
    dict of str to Protocol
        The finished protocols by stage.

    Raises
    ------
    SystemExit
        If a protocol fails; its message and log are named.
    """
    runs = {}

    def run(stage: str, protocol_class, **parameters):
        inputs = {name: value for name, value in parameters.items() if isinstance(value, tuple)}
        plain = {name: value for name, value in parameters.items() if name not in inputs}
        protocol = project.newProtocol(protocol_class, **plain)
        protocol.setObjLabel(stage)
        for name, (producer, output) in inputs.items():
            getattr(protocol, name).set(runs[producer])
            getattr(protocol, name).setExtended(output)
        runs[stage] = _launch(project, protocol, stage)

    run("import micrographs", ProtImportMicrographs, filesPath=source.pattern, samplingRate=source.pixel_size,
        voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1)
    run("normalize", Siamese2DProtNormalize, inputMicrographs=("import micrographs", "outputMicrographs"))
    labels = _import_labels(run, source) if source.labels else _find_labels(run, source, classes // 2)
    run("train picker", Siamese2DProtTrainPicker, inputMicrographs=("normalize", "outputMicrographs"),
        inputCoordinates=labels)
    run("pick", Siamese2DProtPick, inputMicrographs=("normalize", "outputMicrographs"),
        inputPicker=("train picker", "outputPicker"))
    run("extract", Siamese2DProtExtract, inputCoordinates=("pick", "outputCoordinates"))
    run("train embedding", Siamese2DProtTrainEmbedding, inputParticles=("extract", "outputParticles"))
    run("classify", Siamese2DProtClassify, inputParticles=("extract", "outputParticles"),
        inputEmbedding=("train embedding", "outputEmbedding"), numberOfClasses=classes)
    return runs


def _import_labels(run, source: DemoInput) -> tuple[str, str]:
    """Labels from a file; stage and output that hold them."""
    run("import labels", Siamese2DProtImportCoordinates, inputMicrographs=("import micrographs", "outputMicrographs"),
        coordinatesFile=str(source.labels), diameter=source.diameter or -1)
    return "import labels", "outputCoordinates"


def _find_labels(run, source: DemoInput, classes: int) -> tuple[str, str]:
    """Labels without a mark by hand: picks by size, their classes, and the particles of the larger half of these.

    A person would choose the classes by eye.
    """
    run("pick without labels", Siamese2DProtPickUnlabeled, inputMicrographs=("normalize", "outputMicrographs"),
        diameter=source.diameter)
    run("extract first picks", Siamese2DProtExtract, inputCoordinates=("pick without labels", "outputCoordinates"))
    run("classify first picks", Siamese2DProtClassify, inputParticles=("extract first picks", "outputParticles"),
        numberOfClasses=classes)
    run("select classes", ProtClassesSelector, inputClasses=("classify first picks", "outputClasses"),
        firstNElements=(classes + 1) // 2)
    return "select classes", "output"


def stage_folder(protocol, stage: str) -> Path:
    """Folder in which the engine left a stage's files: where inputs may grow, that of its batch, here the only one."""
    folder = Path(protocol._getExtraPath(stage)).resolve()
    return next(folder.glob("batch_*"), folder)


def _launch(project, protocol, stage: str):
    """Launch a protocol, show its progress until it ends, and return it as Scipion stored it."""
    print(f"\n== {stage} ({protocol.getClassLabel()})", flush=True)
    errors = protocol.validate()
    if errors:
        raise SystemExit(f"{stage}: " + " ".join(errors))
    project.saveProtocol(protocol)
    # Scipion itself waits for the process; asking the project meanwhile can take one that has just ended for a dead
    # one.
    ended = threading.Event()
    reader = threading.Thread(target=_show_progress, args=(protocol.getStdoutLog(), ended), daemon=True)
    reader.start()
    try:
        project.launchProtocol(protocol, wait=True)
    finally:
        ended.set()
        reader.join()
    if protocol.getStatus() != STATUS_FINISHED:
        raise SystemExit(f"{stage} failed: {protocol.getErrorMessage()}\nIts log: {protocol.getStdoutLog()}")
    return protocol


def _show_progress(path: str, ended: threading.Event) -> None:
    """Print the engine's own lines (progress and warnings) of a protocol's log as they come."""
    position = 0
    while True:
        last_look = ended.wait(POLL_SECONDS)
        position = _show_from(path, position)
        if last_look:
            return


def _show_from(path: str, position: int) -> int:
    """Print what is worth showing after `position`; returns the end of the last whole line."""
    if not os.path.exists(path):
        return position
    with open(path, "rb") as stream:
        stream.seek(position)
        text = stream.read()
    complete = text[: text.rfind(b"\n") + 1]
    for line in complete.decode(errors="replace").splitlines():
        if any(mark in line for mark in WORTH_SHOWING):
            print("   " + line.strip(), flush=True)
    return position + len(complete)
