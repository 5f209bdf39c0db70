"""Protocols through a real SLURM with the host configuration of the docs: submit, wait, cancel, a node that dies."""

import glob
import json
import os
import shutil
import tempfile
import time
import unittest
from unittest import mock

from pwem.protocols import ProtImportMicrographs
from pyworkflow import Config
from pyworkflow.protocol import MODE_RESUME, STATUS_FINISHED, STATUS_RUNNING
from pyworkflow.protocol.launch import _checkJobStatus

import siamese2d
from siamese2d.protocols import Siamese2DProtExtract, Siamese2DProtImportCoordinates, Siamese2DProtTrainEmbedding
from siamese2d.tests.layer import ProjectTest, simulateMicrographs
from siamese2d.tests.slurm import OneMachineSlurm, missingPrograms
from siamese2d.tests.test_resume import digests

PIXEL, DIAMETER = 8.0, 180.0
PATIENCE = 180
HOSTS = os.path.join(os.path.dirname(siamese2d.__file__), "..", "docs", "hosts_slurm.conf")
ANSWERS = {"JOB_TIME": "1", "JOB_MEMORY": "0", "GRES": "none", "QUEUE_FOR_JOBS": "N"}


class TestSlurm(ProjectTest):
    @classmethod
    def setUpClass(cls):
        missing = missingPrograms()
        if missing:
            raise unittest.SkipTest(f"{', '.join(missing)} not installed (Debian: slurmctld slurmd slurm-client munge)")
        if not os.path.exists(HOSTS):
            raise unittest.SkipTest("the docs are not beside the plugin")
        super().setUpClass()
        folder = tempfile.mkdtemp(prefix="slurm-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.slurm = OneMachineSlurm(folder)
        cls.enterClassContext(cls.slurm)
        cls.enterClassContext(mock.patch.dict(os.environ, cls.slurm.environment))
        cls.enterClassContext(mock.patch.object(Config, "SCIPION_HOSTS", os.path.abspath(HOSTS)))
        os.environ["SCIPION_HOSTS"] = Config.SCIPION_HOSTS
        cls.project._loadHosts(None)
        cls.particles = cls._particles()

    @classmethod
    def _particles(cls):
        simulation = os.path.abspath("simulation")
        simulateMicrographs(simulation, micrographs=2, size=768, pixel_size=PIXEL, diameter=DIAMETER,
                            particles_per_micrograph=30, labels=40, species=1)
        imported = cls.run_(ProtImportMicrographs, filesPath=os.path.join(simulation, "micrographs"),
                            filesPattern="*.mrc", samplingRate=PIXEL)
        labels = cls.run_(Siamese2DProtImportCoordinates, inputMicrographs=(imported, "outputMicrographs"),
                          coordinatesFile=os.path.join(simulation, "training_coordinates.star"), diameter=DIAMETER)
        return cls.run_(Siamese2DProtExtract, inputCoordinates=(labels, "outputCoordinates"))

    def training(self, epochs, queue=True):
        protocol = self.prepare(Siamese2DProtTrainEmbedding, inputParticles=(self.particles, "outputParticles"),
                                numberOfThreads=1, epochs=epochs)
        if queue:
            protocol._useQueue.set(True)
            protocol._queueParams.set(json.dumps(["main", ANSWERS]))
        return protocol

    def submit(self, protocol):
        self.project.launchProtocol(protocol, wait=False)
        self.assertGreater(int(protocol.getJobIds()[0]), 0)
        self.waitFor(lambda: not protocol.isNew() and self.state(protocol).isActive() or protocol.isFinished())

    def state(self, protocol):
        """The protocol as the project's window sees it after a refresh."""
        self.project._updateProtocol(protocol)
        return protocol

    def waitFor(self, holds):
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                self.fail(f"waited in vain; jobs {self.slurm.jobs()}")
            time.sleep(0.5)

    def statusOf(self, job):
        return _checkJobStatus(self.project.getHostConfig("localhost"), job)

    def testJobIsDeadOnlyWhenTheQueueSaysSo(self):
        jobs = {ending: int(self.slurm.run("sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", "--wrap", ending))
                for ending in ("sleep 2", "exit 0", "exit 3")}
        self.assertEqual(self.statusOf(jobs["sleep 2"]), STATUS_RUNNING)
        self.waitFor(lambda: not self.slurm.jobs())
        self.assertEqual(self.statusOf(jobs["exit 0"]), STATUS_RUNNING, "its run may not have been read yet")
        self.assertEqual(self.statusOf(jobs["exit 3"]), STATUS_FINISHED)
        self.assertEqual(self.statusOf(99999), STATUS_FINISHED)
        with mock.patch.dict(os.environ, SLURM_CONF=self.slurm.unreachable()):
            self.assertEqual(self.statusOf(jobs["exit 3"]), STATUS_RUNNING, "a controller out of reach tells nothing")

    def testJobOfTheQueueGivesTheSame(self):
        here = self.training(epochs=2, queue=False)
        self.project.launchProtocol(here, wait=True)
        self.assertFinished(self.state(here))
        queued = self.training(epochs=2)
        self.submit(queued)
        self.waitFor(lambda: not self.state(queued).isActive())
        self.assertFinished(queued)
        self.assertEqual(digests(queued, "embedding*"), digests(here, "embedding*"))
        self.waitFor(lambda: not self.slurm.jobs())

    def testCancelEndsTheJob(self):
        protocol = self.training(epochs=500)
        self.submit(protocol)
        self.waitFor(lambda: glob.glob(protocol.getStagePath("checkpoint*")))
        self.project.stopProtocol(protocol)
        self.waitFor(lambda: not self.slurm.jobs())
        self.assertTrue(self.state(protocol).isAborted())
        self.assertFalse(protocol.hasAttribute("outputEmbedding"))

    def testNodeThatDies(self):
        whole = self.training(epochs=400, queue=False)
        self.project.launchProtocol(whole, wait=True)
        self.assertFinished(self.state(whole))
        protocol = self.training(epochs=400)
        self.submit(protocol)
        self.waitFor(lambda: glob.glob(protocol.getStagePath("checkpoint*")))
        self.slurm.killNode()
        self.waitFor(lambda: self.state(protocol).isFailed())
        self.assertIn("JOB ID", protocol.getErrorMessage())
        self.assertFalse(protocol.hasAttribute("outputEmbedding"))
        self.slurm.startNode()
        protocol.runMode.set(MODE_RESUME)
        self.submit(protocol)
        self.waitFor(lambda: not self.state(protocol).isActive())
        self.assertFinished(protocol)
        self.assertEqual(digests(protocol, "embedding*"), digests(whole, "embedding*"))
