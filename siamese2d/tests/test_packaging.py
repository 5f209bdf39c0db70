"""What an installed plugin holds: the wheel and the source archive carry the engine's source, the menu and the logo.

And that installs of two versions leave each other alone, and nothing behind."""

import glob
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import unittest
import zipfile

import siamese2d
from siamese2d import Plugin
from siamese2d.constants import PIP_ARGS, TORCH_BUILD, VENV_PACKAGE, VERSION
from siamese2d.tests.layer import FolderTest

PACKAGE = os.path.dirname(os.path.abspath(siamese2d.__file__))
REPOSITORY = os.path.dirname(PACKAGE)
WEIGHTS = "siamese2d_engine/picking/weights/medium.safetensors"
DATA = ["siamese2d/protocols.conf", f"siamese2d/{siamese2d._logo}", "siamese2d/engine/pyproject.toml",
        f"siamese2d/engine/{WEIGHTS}", "siamese2d/engine/siamese2d_engine/__init__.py",
        "siamese2d/engine/siamese2d_engine/cli/main.py"]


NEXT = f"{VERSION}.1"
# What a Scipion knows of this plugin, and which engine it starts.
ASK = """
import json, os, subprocess, siamese2d
from siamese2d import Plugin
program = Plugin.getProgram()
answer = subprocess.run(f"{program} --version", shell=True, env=Plugin.getEnviron(), capture_output=True, text=True)
print(json.dumps(dict(plugin=siamese2d.__file__, version=siamese2d.__version__, home=Plugin.getVenvFolder(),
                      engine=answer.stdout.strip())))
"""


class CheckoutTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.source = os.path.join(self.folder, "checkout")
        shutil.copytree(REPOSITORY, self.source, ignore=shutil.ignore_patterns(
            ".git", ".build", "build", "dist", "__pycache__", "*.egg-info", ".pytest_cache", ".hypothesis"))

    def call(self, *command, cwd=None, **options):
        done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


@unittest.skipUnless(os.path.exists(os.path.join(REPOSITORY, "setup.py")), "needs a checkout, not an installed plugin")
class TestArchives(CheckoutTest):
    def engineSources(self):
        """Every file of the engine's package: its code, and the data that comes with it."""
        engine = os.path.join(self.source, "siamese2d", "engine")
        paths = glob.glob("siamese2d_engine/**/*", recursive=True, root_dir=engine)
        return [f"siamese2d/engine/{path}" for path in paths if os.path.isfile(os.path.join(engine, path))]

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


@unittest.skipUnless(os.path.exists(os.path.join(REPOSITORY, "setup.py")), "needs a checkout, not an installed plugin")
class TestTwoVersions(CheckoutTest):
    """This install, and beside it another user's own Scipion with the next version."""

    def setUp(self):
        super().setUp()
        problems = Plugin.validateInstallation()
        if problems:
            self.skipTest(f"the engine can't run here: {problems[0]}")
        for path in ("siamese2d/constants.py", "siamese2d/engine/siamese2d_engine/__init__.py"):
            self.replace(os.path.join(self.source, path), f'"{VERSION}"', f'"{NEXT}"')
        self.user = os.path.join(self.folder, "user")
        self.home, self.python = os.path.join(self.user, "home"), os.path.join(self.user, "scipion", "bin", "python")
        os.makedirs(os.path.join(self.home, "software", "em"))
        # Scipion itself is that of this install, without this plugin: .pth files count in the first folder alone.
        self.call("-m", "venv", "--without-pip", os.path.join(self.user, "scipion"))
        self.packages = glob.glob(os.path.join(self.user, "scipion", "lib", "python*", "site-packages"))[0]
        with open(os.path.join(self.packages, "scipion.pth"), "w") as file:
            file.write(sysconfig.get_path("purelib"))
        # Scipion tells its folders to the processes that it starts.
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith(("SIAMESE2D_", "SCIPION", "EM_ROOT"))}
        self.environment |= {"SCIPION_HOME": self.home, "SCIPION_USER_DATA": os.path.join(self.user, "data"),
                             "SCIPION_NOTIFY": "False", PIP_ARGS: f"--no-deps {self.libraries()}", TORCH_BUILD: "cuda"}

    def testEachRunsItsOwnEngineAndUninstallingOneLeavesTheOther(self):
        ours, scipion = self.state(), listing(self.user)
        self.call("-m", "pip", "--python", self.python, "install", "-q", "--no-deps", self.source)
        self.scipion("installb", VENV_PACKAGE)
        theirs = self.ask()
        self.assertEqual((theirs["version"], theirs["engine"]), (NEXT, NEXT))
        self.assertTrue(theirs["plugin"].startswith(self.packages))
        self.assertEqual(theirs["home"], os.path.join(self.home, "software", "em", f"{VENV_PACKAGE}-{NEXT}"))
        self.assertEqual(self.engine("siamese2d-engine --version"), VERSION)

        self.call("-m", "pip", "--python", self.python, "uninstall", "-q", "-y", "scipion-em-siamese2d")
        shutil.rmtree(theirs["home"])
        left = set(listing(self.user)) - set(scipion)
        self.assertEqual([path for path in left if "siamese2d" in os.path.relpath(path, self.user)], [])
        self.assertEqual(self.state() ^ ours, set())

    def libraries(self):
        """A wheel that makes what this install's engine needs importable, in place of minutes of installing."""
        found = self.engine("python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'")
        path = os.path.join(self.folder, "libraries-1-py3-none-any.whl")
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("libraries.pth", found)
            record = "libraries-1.dist-info"
            wheel.writestr(f"{record}/METADATA", "Metadata-Version: 2.1\nName: libraries\nVersion: 1\n")
            wheel.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{record}/RECORD", "")
        return path

    def scipion(self, *arguments):
        subprocess.run([self.python, "-m", "scipion", *arguments], cwd=self.user, env=self.environment, check=True,
                       capture_output=True)

    def engine(self, command):
        """What a command says in the environment of this install."""
        return subprocess.run(f"{Plugin.getActivationCmd()} && {command}", shell=True, env=Plugin.getEnviron(),
                              capture_output=True, text=True, check=True).stdout.strip()

    def ask(self):
        done = subprocess.run([self.python, "-c", ASK], cwd=self.user, env=self.environment, capture_output=True,
                              text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def replace(self, path, old, new):
        with open(path) as file:
            text = file.read()
        self.assertEqual(text.count(old), 1)
        with open(path, "w") as file:
            file.write(text.replace(old, new))

    def state(self):
        """Files of this install, with all environments of its Scipion, and the times at which they were written."""
        installed = glob.glob(os.path.join(sysconfig.get_path("purelib"), "*siamese2d*"))
        paths = [path for folder in (os.path.dirname(Plugin.getVenvFolder()), *installed) for path in listing(folder)]
        return {(path, os.lstat(path).st_mtime_ns) for path in paths}


def listing(folder):
    """All files below a folder, without what Python compiles."""
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names
                  if "__pycache__" not in base)
