"""What an installed plugin holds: the wheel and the source archive carry the engine's source, the menu and the logo."""

import glob
import os
import shutil
import subprocess
import sys
import tarfile
import unittest
import zipfile

import siamese2d
from siamese2d.constants import VERSION
from siamese2d.tests.layer import FolderTest

PACKAGE = os.path.dirname(os.path.abspath(siamese2d.__file__))
REPOSITORY = os.path.dirname(PACKAGE)
WEIGHTS = "siamese2d_engine/picking/weights/medium.safetensors"
DATA = ["siamese2d/protocols.conf", f"siamese2d/{siamese2d._logo}", "siamese2d/engine/pyproject.toml",
        f"siamese2d/engine/{WEIGHTS}", "siamese2d/engine/siamese2d_engine/__init__.py",
        "siamese2d/engine/siamese2d_engine/cli/main.py"]


@unittest.skipUnless(os.path.exists(os.path.join(REPOSITORY, "setup.py")), "needs a checkout, not an installed plugin")
class TestArchives(FolderTest):
    def setUp(self):
        super().setUp()
        self.source = os.path.join(self.folder, "checkout")
        shutil.copytree(REPOSITORY, self.source, ignore=shutil.ignore_patterns(
            ".git", ".build", "build", "dist", "__pycache__", "*.egg-info", ".pytest_cache", ".hypothesis"))

    def engineSources(self):
        """Every file of the engine's package: its code, and the data that comes with it."""
        engine = os.path.join(self.source, "siamese2d", "engine")
        paths = glob.glob("siamese2d_engine/**/*", recursive=True, root_dir=engine)
        return [f"siamese2d/engine/{path}" for path in paths if os.path.isfile(os.path.join(engine, path))]

    def call(self, *command, cwd=None):
        done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def testSourceArchive(self):
        self.call("setup.py", "-q", "sdist", "-d", self.folder, cwd=self.source)
        root = f"scipion-em-siamese2d-{VERSION}"
        path = next(path for path in glob.glob("*.tar.gz"))
        with tarfile.open(path) as archive:
            names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        self.assertTrue(path.replace("_", "-").startswith(root), path)
        for name in [*DATA, *self.engineSources(), "setup.py", "LICENSE"]:
            self.assertIn(name, names)

    def testWheelAndInstallFromIt(self):
        self.call("-m", "pip", "wheel", "-q", "--no-deps", "-w", self.folder, self.source)
        wheel = next(iter(glob.glob("*.whl")))
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        for name in [*DATA, *self.engineSources()]:
            self.assertIn(name, names)
        self.assertFalse([name for name in names if "__pycache__" in name or name.endswith(".pyc")])
        self.call("-m", "venv", "fresh")
        python = os.path.join("fresh", "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
        installed = glob.glob("fresh/lib/python*/site-packages")[0]
        for name in DATA:
            self.assertTrue(os.path.exists(os.path.join(installed, name)), name)
        entryPoints = subprocess.run([python, "-c", "from importlib.metadata import entry_points; "
                                      "print([e.value for e in entry_points(group='pyworkflow.plugin')])"],
                                     capture_output=True, text=True, check=True).stdout
        self.assertEqual(entryPoints.strip(), "['siamese2d']")
        self.assertTrue(self.engineWheel(os.path.join(installed, "siamese2d", "engine")))
        subprocess.run([python, "-m", "compileall", "-q", os.path.join(installed, "siamese2d")], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "scipion-em-siamese2d"], check=True)
        self.assertEqual([path for path in listing(installed) if "siamese2d" in path], [])
        self.assertFalse(os.path.exists(os.path.join(installed, "siamese2d")))

    def engineWheel(self, engine):
        """The engine builds from the installed plugin's folder, and leaves nothing there."""
        before = listing(engine)
        self.call("-m", "pip", "wheel", "-q", "--no-deps", "-w", "engine_wheel", engine)
        self.assertEqual(listing(engine), before)
        with zipfile.ZipFile(glob.glob("engine_wheel/*.whl")[0]) as archive:
            return {"siamese2d_engine/cli/main.py", WEIGHTS} <= set(archive.namelist())


def listing(folder):
    """All files below a folder, without what Python compiles."""
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names
                  if "__pycache__" not in base)
