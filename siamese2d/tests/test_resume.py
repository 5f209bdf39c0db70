"""A run that is killed continues and gives the same answer; two projects run at once without touching each other."""

import glob
import hashlib
import os
import re
import signal
import time

import psutil

from pwem.protocols import ProtImportMicrographs
from pyworkflow.project import Manager
from pyworkflow.protocol import MODE_RESUME

from siamese2d.constants import ENGINE_PROGRAM
from siamese2d.protocols import (Siamese2DProtExtract, Siamese2DProtImportCoordinates, Siamese2DProtNormalize,
                                 Siamese2DProtTrainEmbedding)
from siamese2d.tests.layer import ProjectTest, SetAssertions, simulateMicrographs

PIXEL, DIAMETER = 8.0, 180.0
PATIENCE = 120
RUNNER = re.compile("pw_(protocol|schedule)_run.py")


class TestKilled(ProjectTest, SetAssertions):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = os.path.abspath("simulation")
        simulateMicrographs(cls.simulation, micrographs=8, size=768, pixel_size=PIXEL, diameter=DIAMETER,
                            particles_per_micrograph=30, labels=40, species=1)
        cls.imported = cls.run_(ProtImportMicrographs, filesPath=os.path.join(cls.simulation, "micrographs"),
                                filesPattern="*.mrc", samplingRate=PIXEL)

    def kill(self, protocol, pattern):
        """Launch a protocol and kill its engine as soon as a file of this pattern is in its folder."""
        self.project.launchProtocol(protocol, wait=False)
        engine = self._waitFor(lambda: self._engineAt(protocol, pattern))
        os.kill(engine.pid, signal.SIGKILL)
        waitForEnd(self.project)
        self.project._updateProtocol(protocol)

    def resume(self, protocol):
        protocol.runMode.set(MODE_RESUME)
        self.project.launchProtocol(protocol, wait=True)
        self.project._updateProtocol(protocol)
        self.assertFinished(protocol)

    def testNormalize(self):
        inputs = {"inputMicrographs": (self.imported, "outputMicrographs"), "downsample": 1.5, "numberOfThreads": 1}
        whole = self.run_(Siamese2DProtNormalize, **inputs)
        self.assertFinished(whole)
        killed = self.prepare(Siamese2DProtNormalize, **inputs)
        self.kill(killed, "*/micrographs/*.mrc")
        self.assertTrue(killed.isFailed())
        self.assertIn("Continue the protocol", killed.getErrorMessage())
        self.assertFalse(killed.hasAttribute("outputMicrographs"))
        done = set(glob.glob(killed.getStagePath("*", "micrographs", "*.mrc")))
        self.assertTrue(0 < len(done) < 8, f"{len(done)} of 8 micrographs when it was killed")
        before = {path: os.stat(path).st_mtime_ns for path in done}
        self.resume(killed)
        self.assertSet(killed.outputMicrographs, size=8)
        self.assertEqual(digests(killed, "*/micrographs/*.mrc"), digests(whole, "*/micrographs/*.mrc"))
        self.assertEqual({path: os.stat(path).st_mtime_ns for path in done}, before, "finished work was done again")
        self.assertEqual(glob.glob(killed.getStagePath("**", "*.partial*"), recursive=True), [])

    def testTraining(self):
        coordinates = os.path.join(self.simulation, "training_coordinates.star")
        labels = self.run_(Siamese2DProtImportCoordinates, inputMicrographs=(self.imported, "outputMicrographs"),
                           coordinatesFile=coordinates, diameter=DIAMETER)
        self.assertFinished(labels)
        particles = self.run_(Siamese2DProtExtract, inputCoordinates=(labels, "outputCoordinates"))
        self.assertFinished(particles)
        inputs = {"inputParticles": (particles, "outputParticles"), "numberOfThreads": 1, "epochs": 60}
        whole = self.run_(Siamese2DProtTrainEmbedding, **inputs)
        self.assertFinished(whole)
        killed = self.prepare(Siamese2DProtTrainEmbedding, **inputs)
        self.kill(killed, "checkpoint*")
        self.assertTrue(killed.isFailed())
        self.assertFalse(os.path.exists(killed.getStagePath("embedding.safetensors")))
        self.resume(killed)
        self.assertEqual(digests(killed, "embedding*"), digests(whole, "embedding*"))
        self.assertEqual(len(digests(whole, "embedding*")), 2)

    def _engineAt(self, protocol, pattern):
        if not glob.glob(protocol.getStagePath(pattern)):
            return None
        folder = protocol.getStagePath()
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            here = any(part.startswith(folder) for part in command)
            if here and any(part.endswith(ENGINE_PROGRAM) for part in command):
                return process
        return None

    def _waitFor(self, ask):
        start = time.monotonic()
        while time.monotonic() - start < PATIENCE:
            answer = ask()
            if answer:
                return answer
            time.sleep(0.005)
        return self.fail("waited in vain")


class TestTwoProjects(ProjectTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = os.path.abspath("simulation")
        simulateMicrographs(cls.simulation, micrographs=4, size=256, pixel_size=PIXEL, diameter=DIAMETER,
                            particles_per_micrograph=10, labels=10, species=1)

    def testAtOnce(self):
        """The same protocol with other parameters in two projects, started together."""
        other = Manager().createProject(f"{self.projectName}_other")
        self.addCleanup(Manager().deleteProject, other.getName())
        self.addCleanup(os.chdir, self.project.path)
        runs = [(project, self._normalize(project, downsample))
                for project, downsample in ((self.project, 1.0), (other, 2.0))]
        for project, protocol in runs:
            os.chdir(project.path)
            project.launchProtocol(protocol, wait=False)
        for (project, protocol), pixelSize in zip(runs, (PIXEL, 2 * PIXEL)):
            os.chdir(project.path)
            waitForEnd(project)
            project._updateProtocol(protocol)
            self.assertFinished(protocol)
            self.assertAlmostEqual(protocol.outputMicrographs.getSamplingRate(), pixelSize)
            self.assertEqual(protocol.outputMicrographs.getSize(), 4)
            self.assertEqual(protocol.outputMicrographs.getDim()[0], round(256 * PIXEL / pixelSize))

    def _normalize(self, project, downsample):
        os.chdir(project.path)
        imported = project.newProtocol(ProtImportMicrographs, filesPath=os.path.join(self.simulation, "micrographs"),
                                       filesPattern="*.mrc", samplingRate=PIXEL)
        project.launchProtocol(imported, wait=True)
        project._updateProtocol(imported)
        protocol = project.newProtocol(Siamese2DProtNormalize, downsample=downsample)
        protocol.inputMicrographs.set(imported)
        protocol.inputMicrographs.setExtended("outputMicrographs")
        project.saveProtocol(protocol)
        return protocol


def waitForEnd(project):
    """Wait until no protocol of a project runs or is scheduled.

    Asking the project for the status before that can take a process that has just finished for one that died.
    """
    start = time.monotonic()
    while time.monotonic() - start < PATIENCE:
        commands = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
        if not any(project.path in command and RUNNER.search(command) for command in commands):
            return
        time.sleep(0.1)
    raise TimeoutError(f"a protocol of {project.path} still runs after {PATIENCE} s")


def digests(protocol, pattern):
    """Contents of the engine's files, by name; of MRC files without the header, which holds the time of writing."""
    found = {}
    for path in sorted(glob.glob(protocol.getStagePath(pattern))):
        with open(path, "rb") as stream:
            stream.seek(1024 if path.endswith(".mrc") else 0)
            found[os.path.basename(path)] = hashlib.sha256(stream.read()).hexdigest()
    return found
