"""One install for several users at once: everything but a user's own folder is read-only, by the kernel."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from siamese2d import Plugin
from siamese2d.tests.layer import simulateMicrographs

PIXEL, DIAMETER = 8.0, 180.0
PATIENCE = 240
# In a mount namespace of its own; the user's folder stays writable because it is a mount of its own.
LOCK = 'mount --bind "$1" "$1" && mount -o remount,ro,bind / && shift && exec "$@"'
USER = """
import os, sys
from pwem.protocols import ProtImportMicrographs
from pyworkflow.project import Manager
from siamese2d.protocols import Siamese2DProtNormalize, Siamese2DProtPickUnlabeled

try:
    open(os.path.join(os.environ["SCIPION_HOME"], "written"), "w")
    sys.exit("the install is not read-only")
except OSError:
    pass
project = Manager().createProject("session")
os.chdir(project.path)

def launch(protocol):
    project.launchProtocol(protocol, wait=True)
    project._updateProtocol(protocol)
    if not protocol.isFinished():
        sys.exit(f"{protocol.getClassName()}: {protocol.getErrorMessage()}")
    return protocol

imported = launch(project.newProtocol(ProtImportMicrographs, filesPath=sys.argv[1], filesPattern="*.mrc",
                                      samplingRate=float(sys.argv[2])))
normalize = project.newProtocol(Siamese2DProtNormalize, numberOfThreads=1)
normalize.inputMicrographs.set(imported)
normalize.inputMicrographs.setExtended("outputMicrographs")
launch(normalize)
pick = project.newProtocol(Siamese2DProtPickUnlabeled, diameter=float(sys.argv[3]), numberOfThreads=1)
pick.inputMicrographs.set(normalize)
pick.inputMicrographs.setExtended("outputMicrographs")
print("picked", launch(pick).outputCoordinates.getSize())
"""


def canLock():
    """Whether this machine lets the tests make mounts read-only, which needs root."""
    return shutil.which("unshare") is not None and subprocess.run(
        ["unshare", "--mount", "sh", "-c", LOCK, "sh", tempfile.gettempdir(), "true"],
        capture_output=True).returncode == 0


class TestReadOnlyInstall(unittest.TestCase):
    def setUp(self):
        if not canLock():
            self.skipTest("mounts can't be made read-only here: needs root and unshare")
        problems = Plugin.validateInstallation()
        if problems:
            self.skipTest(f"the engine can't run here: {problems[0]}")
        self.folder = tempfile.mkdtemp(prefix="siamese2d-users-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def testTwoUsersAtOnce(self):
        simulation = os.path.join(self.folder, "microscope")
        simulateMicrographs(simulation, micrographs=2, size=384, pixel_size=PIXEL, diameter=DIAMETER,
                            particles_per_micrograph=12, species=1)
        users = [self.start(name, os.path.join(simulation, "micrographs")) for name in ("first", "second")]
        for process in users:
            output, _ = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 0, output[-3000:])
            picked = int(output.rsplit("picked ", 1)[1].split()[0])
            self.assertGreater(picked, 10)

    def start(self, name, micrographs):
        """A user's session, in which only the user's own folder can be written to."""
        home = os.path.join(self.folder, name)
        for folder in ("data", "tmp"):
            os.makedirs(os.path.join(home, folder))
        script = os.path.join(home, "session.py")
        with open(script, "w") as file:
            file.write(USER)
        environment = dict(os.environ, HOME=home, TMPDIR=os.path.join(home, "tmp"),
                           SCIPION_USER_DATA=os.path.join(home, "data"), SCIPION_NOTIFY="False")
        command = [sys.executable, script, micrographs, str(PIXEL), str(DIAMETER)]
        return subprocess.Popen(["unshare", "--mount", "sh", "-c", LOCK, "sh", home, *command], cwd=home,
                                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
