"""What the tests share: projects in temporary places, small made-up sets, and assertions about Scipion sets."""

import os
import shutil
import subprocess
import tempfile
import time
import tkinter as tk
import unittest

import mrcfile
import numpy as np

import pwem
import pyworkflow.utils as pwutils
from pwem.objects import Coordinate, CTFModel, Micrograph, Particle, SetOfCoordinates, SetOfMicrographs, SetOfParticles
from pyworkflow.exceptions import ValidationException
from pyworkflow.object import Pointer
from pyworkflow.project import Manager

from siamese2d import Plugin
from siamese2d.constants import ENGINE_PROGRAM
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtStreamingBase

ACQUISITION = {"voltage": 300.0, "sphericalAberration": 2.7, "amplitudeContrast": 0.1, "magnification": 50000.0}

# Seconds.
WINDOW_PATIENCE = 10


class FolderTest(unittest.TestCase):
    """A test that works in a temporary folder of its own, with sets that belong to no project."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="siamese2d-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        # Protocols know their plugin only after Scipion has discovered them.
        pwem.Domain.getProtocols()

    def emptySet(self, setClass):
        """A set in a file of its own."""
        return setClass(filename=f"set{len(os.listdir('.'))}.sqlite")

    def makeMicrographs(self, number=3, pixelSize=2.0, size=(40, 60), name="micrographs"):
        """Set of `number` MRC micrographs of `size` (height, width) with ids 5, 6, ... and names unlike their files."""
        micrographs = self.emptySet(SetOfMicrographs)
        micrographs.setSamplingRate(pixelSize)
        setAcquisition(micrographs)
        os.makedirs(name, exist_ok=True)
        for index in range(number):
            path = os.path.join(name, f"file{index}.mrc")
            writeMrc(path, np.random.default_rng(index).normal(size=size))
            mic = Micrograph(path)
            mic.setObjId(index + 5)
            mic.setMicName(f"grid1_{index}")
            mic.setSamplingRate(pixelSize)
            micrographs.append(mic)
        micrographs.write()
        return micrographs

    def makeCoordinates(self, micrographs, positions, boxSize=12):
        """Set of coordinates; `positions` lists (index of the micrograph, x, y)."""
        coordinates = self.emptySet(SetOfCoordinates)
        coordinates.setMicrographs(Pointer(value=micrographs))
        coordinates.setBoxSize(boxSize)
        mics = [mic.clone() for mic in micrographs]
        for index, x, y in positions:
            coordinate = Coordinate()
            coordinate.setMicrograph(mics[index])
            coordinate.setPosition(x, y)
            coordinates.append(coordinate)
        coordinates.write()
        return coordinates

    def makeParticles(self, number=6, box=16, pixelSize=3.0, ctf=True):
        """Set of particles in one stack, with ids that are not their positions in it."""
        particles = self.emptySet(SetOfParticles)
        particles.setSamplingRate(pixelSize)
        particles.setHasCTF(ctf)
        setAcquisition(particles)
        writeMrc("stack.mrcs", np.random.default_rng(7).normal(size=(number, box, box)))
        for index in range(number):
            particle = Particle()
            particle.setObjId(3 * index + 2)
            particle.setLocation(number - index, "stack.mrcs")
            particle.setSamplingRate(pixelSize)
            if ctf:
                particle.setCTF(makeCtf(10000.0 + 100 * index))
            particles.append(particle)
        particles.write()
        return particles


class WindowTest(FolderTest):
    """A test with windows; skipped only where there is no display."""

    # One for all tests: Scipion keeps the images of its dialogs, which belong to the first root.
    root = None

    def setUp(self):
        super().setUp()
        if WindowTest.root is None:
            try:
                WindowTest.root = tk.Tk()
            except tk.TclError as problem:
                raise unittest.SkipTest(f"there is no display: {problem}")
            self.root.withdraw()
        self.addCleanup(lambda: [child.destroy() for child in self.root.winfo_children()])

    def wait(self, done):
        """Let the windows work until something is done."""
        end = time.monotonic() + WINDOW_PATIENCE
        while time.monotonic() < end:
            self.root.update()
            if done():
                return
            time.sleep(0.005)
        self.fail("nothing happened")


class ProjectTest(unittest.TestCase):
    """Tests in a real Scipion project, which is removed afterwards."""

    @classmethod
    def setUpClass(cls):
        problems = Plugin.validateInstallation()
        if problems:
            raise unittest.SkipTest(f"the engine can't run here: {problems[0]}")
        cls._before = os.getcwd()
        cls.projectName = f"siamese2d_{cls.__name__}_{os.getpid()}"
        cls.project = Manager().createProject(cls.projectName)
        os.chdir(cls.project.path)

    @classmethod
    def tearDownClass(cls):
        os.chdir(cls._before)
        cls.project.closeMapper()
        Manager().deleteProject(cls.projectName)

    @classmethod
    def prepare(cls, protocolClass, **parameters):
        """A saved protocol on the processor; pairs of (protocol, output name) become pointers."""
        protocol = cls.project.newProtocol(protocolClass)
        if protocol.allowsGpu():
            protocol.useGpu.set(False)
        if isinstance(protocol, Siamese2DProtStreamingBase):
            # A closed input needs no more, and Scipion looks after threads only every 3 s.
            protocol.numberOfThreads.set(1)
        for name, value in parameters.items():
            if isinstance(value, tuple):
                getattr(protocol, name).set(value[0])
                getattr(protocol, name).setExtended(value[1])
            else:
                getattr(protocol, name).set(value)
        return protocol

    @classmethod
    def run_(cls, protocolClass, **parameters):
        """Launch a protocol through Scipion and wait for its end, whichever it is."""
        protocol = cls.prepare(protocolClass, **parameters)
        try:
            cls.project.launchProtocol(protocol, wait=True)
        finally:
            cls.project._updateProtocol(protocol)
        return protocol

    def assertFinished(self, protocol):
        """Fail with the protocol's message and the end of its logs unless it finished."""
        if not protocol.isFinished():
            self.fail(f"{protocol.getClassName()} ended as {protocol.getStatus()}: {protocol.getErrorMessage()}\n"
                      + "\n".join(_tail(protocol.getStdoutLog()) + _tail(protocol.getStderrLog())))

    def assertRefused(self, protocolClass, *words, **parameters):
        """The form must refuse these parameters with one message that has all these words."""
        errors = self.prepare(protocolClass, **parameters).validate()
        self.assertEqual(len(errors), 1, errors)
        for word in words:
            self.assertIn(word, errors[0])


class ChainTest(ProjectTest):
    """A chain of protocols on simulated micrographs. Each stage runs once, when the first test asks for it.

    Stages are methods ``_run_NAME`` that return the protocol.
    """

    simulation = None
    settings = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.simulation = os.path.abspath("simulation")
        simulateMicrographs(cls.simulation, **cls.settings)
        cls.runs = {}

    def stage(self, name):
        """The finished protocol of a stage, run now if it was not before."""
        if name not in self.runs:
            self.runs[name] = getattr(self, f"_run_{name}")()
        self.assertFinished(self.runs[name])
        return self.runs[name]


class SetAssertions:
    """Assertions about Scipion sets, for any test case."""

    def assertSet(self, items, size=None, pixelSize=None, dimensions=None):
        """Size, sampling rate and image size, and that the set reads back from its file the same."""
        self.assertIsNotNone(items)
        if size is not None:
            self.assertEqual(items.getSize(), size)
        self.assertFalse(items.isStreamOpen(), "the set is still open")
        if pixelSize is not None:
            self.assertAlmostEqual(items.getSamplingRate(), pixelSize, places=4)
        if dimensions is not None:
            self.assertEqual(tuple(items.getDim())[:2], dimensions)
        self._assertPersistent(items)

    def assertFilesInside(self, paths, folder):
        """Every file exists below this folder."""
        self.assertTrue(paths)
        for path in paths:
            self.assertTrue(os.path.exists(path), f"{path} is missing")
            inside = os.path.abspath(path).startswith(os.path.abspath(folder) + os.sep)
            self.assertTrue(inside, f"{path} not in {folder}")

    def _assertPersistent(self, items):
        stored = items.getClass()(filename=items.getFileName())
        stored.loadAllProperties()
        self.assertEqual(stored.getSize(), items.getSize())
        ids = [item.getObjId() for item in stored.iterItems()]
        self.assertEqual(len(ids), items.getSize())
        self.assertEqual(len(set(ids)), len(ids), "ids are not unique")
        stored.close()


def setAcquisition(items):
    """Give a set the acquisition of all tests."""
    acquisition = items.getAcquisition()
    acquisition.setVoltage(ACQUISITION["voltage"])
    acquisition.setSphericalAberration(ACQUISITION["sphericalAberration"])
    acquisition.setAmplitudeContrast(ACQUISITION["amplitudeContrast"])
    acquisition.setMagnification(ACQUISITION["magnification"])


def makeCtf(defocus, phaseShift=None):
    """CTF with 400 A of astigmatism."""
    ctf = CTFModel()
    ctf.setStandardDefocus(defocus + 200, defocus - 200, 35.0)
    if phaseShift is not None:
        ctf.setPhaseShift(phaseShift)
    return ctf


def writeMrc(path, array, pixelSize=1.0):
    """Write an image or a stack."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.asarray(array, dtype=np.float32))
        mrc.voxel_size = pixelSize


def runEngine(*args):
    """Run the engine in the plugin's environment and return what it printed."""
    command = f"{Plugin.getActivationCmd()} && {ENGINE_PROGRAM} " + " ".join(str(arg) for arg in args)
    done = subprocess.run(command, shell=True, env=Plugin.getEnviron(), capture_output=True, text=True)
    if done.returncode:
        raise ValidationException(done.stderr)
    return done.stdout


def simulateMicrographs(folder, **options):
    """Simulated micrographs with their truth; options are those of ``simulate micrographs``."""
    args = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    runEngine("simulate", "micrographs", "--out", folder, "--threads", 1, *args)


def _tail(path, lines=25):
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as log:
        return [pwutils.removeExt(os.path.basename(path)) + ":"] + log.read().splitlines()[-lines:]
