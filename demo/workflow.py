"""The main job as a Scipion project: protocols launched one after the other through Scipion's own machinery."""

import os
import time
from pathlib import Path

from pyworkflow.project import Manager
from pyworkflow.protocol import STATUS_ABORTED, STATUS_FAILED, STATUS_FINISHED, STATUS_INTERACTIVE

from pwem.protocols import ProtImportMicrographs
from siamese2d.protocols import (Siamese2DProtClassify, Siamese2DProtExtract, Siamese2DProtImportCoordinates,
                                 Siamese2DProtNormalize, Siamese2DProtPick, Siamese2DProtTrainEmbedding,
                                 Siamese2DProtTrainPicker)

from inputs import DemoInput

POLL_SECONDS = 0.5
ENDED = (STATUS_FINISHED, STATUS_FAILED, STATUS_ABORTED, STATUS_INTERACTIVE)


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
    run("import labels", Siamese2DProtImportCoordinates, inputMicrographs=("import micrographs", "outputMicrographs"),
        coordinatesFile=str(source.labels), diameter=source.diameter or -1)
    run("train picker", Siamese2DProtTrainPicker, inputMicrographs=("normalize", "outputMicrographs"),
        inputCoordinates=("import labels", "outputCoordinates"))
    run("pick", Siamese2DProtPick, inputMicrographs=("normalize", "outputMicrographs"),
        inputPicker=("train picker", "outputPicker"))
    run("extract", Siamese2DProtExtract, inputCoordinates=("pick", "outputCoordinates"))
    run("train embedding", Siamese2DProtTrainEmbedding, inputParticles=("extract", "outputParticles"))
    run("classify", Siamese2DProtClassify, inputParticles=("extract", "outputParticles"),
        inputEmbedding=("train embedding", "outputEmbedding"), numberOfClasses=classes)
    return runs


def stage_folder(protocol, stage: str) -> Path:
    """Folder in which the engine left a stage's files."""
    return Path(protocol._getExtraPath(stage)).resolve()


def _launch(project, protocol, stage: str):
    """Launch a protocol, show its progress until it ends, and return it as Scipion stored it."""
    print(f"\n== {stage} ({protocol.getClassLabel()})", flush=True)
    errors = protocol.validate()
    if errors:
        raise SystemExit(f"{stage}: " + " ".join(errors))
    project.launchProtocol(protocol)
    log = _Tail(protocol)
    while True:
        project._updateProtocol(protocol)
        log.show()
        if protocol.getStatus() in ENDED:
            break
        time.sleep(POLL_SECONDS)
    if protocol.getStatus() != STATUS_FINISHED:
        raise SystemExit(f"{stage} failed: {protocol.getErrorMessage()}\nIts log: {protocol.getStdoutLog()}")
    return protocol


class _Tail:
    """Shows the engine's own lines (progress and warnings) of a protocol's log as they come."""

    WORTH_SHOWING = (" %)", "warning:", "s left")

    def __init__(self, protocol):
        self._protocol = protocol
        self._position = 0

    def show(self) -> None:
        path = self._protocol.getStdoutLog()
        if not os.path.exists(path):
            return
        with open(path, errors="replace") as stream:
            stream.seek(self._position)
            text = stream.read()
        complete = text.rfind("\n") + 1
        self._position += len(text[:complete].encode(errors="replace"))
        for line in text[:complete].splitlines():
            if any(mark in line for mark in self.WORTH_SHOWING):
                print("   " + line.strip(), flush=True)
