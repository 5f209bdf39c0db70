"""The managed environment: which one is chosen, how it is built, and what is said when something is wrong with it.

There is no conda where these tests run: of the conda environment the command strings are checked, and its activation
through a stand-in for conda, a shell function over a plain folder. The venv recipe is run as it is, except that pip
installs from a folder without dependencies.
"""

import os
import shutil
import stat
import subprocess
import sys
import unittest
from unittest import mock

import pwem
import siamese2d
from pyworkflow.exceptions import ValidationException
from siamese2d import Plugin, quoteArguments
from siamese2d.constants import (CONDA_ENV_NAME, CONDA_PACKAGE, ENV_ACTIVATION, HANDSHAKE, INSTALLED_MARKER, PIP_ARGS,
                                 PYTHON, TORCH_BUILD, VENV_PACKAGE, VERSION)
from siamese2d.protocols import Siamese2DProtClassify
from siamese2d.tests.layer import FolderTest

GOOD_REPORT = f'{{"version": "{VERSION}", "torch": "2.13.0", "devices": ["cpu", "cuda:0"]}}'


class EnvironmentTest(FolderTest):
    """A test with an empty place for software, no site's choice, and no memory of earlier answers."""

    def setUp(self):
        super().setUp()
        self.root = os.path.join(self.folder, "software")
        self.enter(mock.patch.object(pwem.Config, "EM_ROOT", self.root))
        self.enter(mock.patch.object(Plugin, "_handshakes", {}))
        self.enter(mock.patch.object(Plugin, "_condaActivationCmd", "eval hook &&"))
        self.enter(mock.patch.dict(os.environ))
        os.environ.pop(ENV_ACTIVATION, None)
        os.environ.pop(HANDSHAKE, None)
        self.enter(mock.patch.dict(Plugin._vars, {TORCH_BUILD: "cuda", PIP_ARGS: "", PYTHON: sys.executable}))

    def enter(self, context):
        context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def makeEnvironment(self, folder, script):
        """A folder with an `activate` and an engine that is a shell script."""
        programs = os.path.join(folder, "bin")
        os.makedirs(programs)
        with open(os.path.join(programs, "activate"), "w") as activate:
            activate.write(f'PATH="{programs}:$PATH"; export PATH\n')
        engine = os.path.join(programs, "siamese2d-engine")
        with open(engine, "w") as program:
            program.write(f"#!/bin/sh\n{script}\n")
        os.chmod(engine, 0o755)
        return f". '{programs}/activate'"

    def mark(self, package):
        folder = os.path.join(self.root, f"{package}-{VERSION}")
        os.makedirs(folder, exist_ok=True)
        open(os.path.join(folder, INSTALLED_MARKER), "w").close()
        return folder


class TestChoice(EnvironmentTest):
    def testCondaIsTheDefault(self):
        self.assertEqual(Plugin.getEnvActivation(), f"conda activate {CONDA_ENV_NAME}")
        self.assertEqual(Plugin.getActivationCmd(), f"eval hook && conda activate {CONDA_ENV_NAME}")
        self.assertEqual(Plugin.getProgram(), f"eval hook && conda activate {CONDA_ENV_NAME} && siamese2d-engine")

    def testBuiltVenvComesBeforeConda(self):
        folder = self.mark(VENV_PACKAGE)
        self.mark(CONDA_PACKAGE)
        self.assertEqual(Plugin.getActivationCmd(), f". {folder}/env/bin/activate")

    def testHalfBuiltVenvDoesNotCount(self):
        os.makedirs(os.path.join(self.root, f"{VENV_PACKAGE}-{VERSION}", "env"))
        self.assertIn("conda activate", Plugin.getActivationCmd())

    def testSiteComesFirst(self):
        self.mark(VENV_PACKAGE)
        os.environ[ENV_ACTIVATION] = ". /site/env/bin/activate"
        self.assertEqual(Plugin.getActivationCmd(), ". /site/env/bin/activate")

    def testCondaOfTheSiteGetsCondasActivation(self):
        os.environ[ENV_ACTIVATION] = "conda activate ours"
        self.assertEqual(Plugin.getActivationCmd(), "eval hook && conda activate ours")

    def testNameCarriesTheVersion(self):
        self.assertTrue(CONDA_ENV_NAME.endswith(VERSION))
        self.assertIn(VERSION, Plugin.getVenvFolder())

    def testEnvironmentVariables(self):
        os.environ.update(PYTHONPATH="/scipions", PYTHONHOME="/scipions", SOMETHING="kept")
        environ = Plugin.getEnviron()
        self.assertNotIn("PYTHONPATH", environ)
        self.assertNotIn("PYTHONHOME", environ)
        self.assertEqual(environ["SOMETHING"], "kept")


class TestRecipes(EnvironmentTest):
    def testConda(self):
        steps = Plugin.getCondaCommand().split(" && ")
        self.assertEqual(steps[0], "unset PYTHONPATH PYTHONHOME")
        command = Plugin.getCondaCommand()
        order = [command.index(part) for part in (
            "eval hook &&", f"conda create -y -n {CONDA_ENV_NAME} python=", f"conda activate {CONDA_ENV_NAME}",
            "python -m pip install", "siamese2d-engine check", f"touch {INSTALLED_MARKER}")]
        self.assertEqual(order, sorted(order))
        self.assertTrue(command.endswith(f"touch {INSTALLED_MARKER}"))

    def testVenv(self):
        command = Plugin.getVenvCommand()
        self.assertIn(f"{sys.executable} -m venv --clear env && . env/bin/activate && python -m pip install", command)
        self.assertNotIn("conda", command.replace(Plugin.getEngineFolder(), ""))
        self.assertTrue(command.endswith(f"siamese2d-engine check && touch {INSTALLED_MARKER}"))

    def testPipArguments(self):
        engine = Plugin.getEngineFolder()
        self.assertEqual(Plugin.getPipCommand(), f"python -m pip install {engine}")
        Plugin._vars[PIP_ARGS] = "--no-index --find-links /wheels"
        self.assertEqual(Plugin.getPipCommand(), f"python -m pip install --no-index --find-links /wheels {engine}")

    def testCpuBuildOfTorch(self):
        Plugin._vars[TORCH_BUILD] = "cpu"
        with open(os.path.join(Plugin.getEngineFolder(), "pyproject.toml")) as project:
            self.assertIn('"torch ==2.13.0"', project.read())
        torch, engine = Plugin.getPipCommand().split(" && ")
        self.assertTrue(torch.startswith("{ python -m pip install --no-deps torch==2.13.0+cpu || echo "))
        self.assertEqual(engine, f"python -m pip install {Plugin.getEngineFolder()}")

    def testWithoutACpuBuildTheGeneralOneIsTakenAndSaid(self):
        Plugin._vars[TORCH_BUILD] = "cpu"
        command = Plugin.getPipCommand().replace("python -m pip install --no-deps", "false")
        command = command.replace("python -m pip", "echo pip")
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        said, then = done.stdout.splitlines()
        self.assertIn("hold no CPU build of torch", said)
        self.assertTrue(then.startswith("pip install "))

    def testUnknownBuildOfTorchStopsTheRecipe(self):
        Plugin._vars[TORCH_BUILD] = "rocm"
        Plugin._vars[PYTHON] = "/no/such/python"
        done = subprocess.run(Plugin.getVenvCommand(), shell=True, capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stderr.strip(), "SIAMESE2D_TORCH is rocm, but must be cpu or cuda.")

    def testFormsAskForAGpuWhereTheSiteSaysSoOrTheMachineHasOne(self):
        open(os.path.join(self.folder, "nvidia0"), "w").close()
        for build, devices, asked in (("cpu", "nvidia*", False), ("cuda", "none*", True), ("", "nvidia*", True),
                                      ("", "none*", False)):
            os.environ[TORCH_BUILD] = build
            with self.subTest(build=build, devices=devices), \
                    mock.patch("siamese2d.GPU_DEVICES", os.path.join(self.folder, devices)):
                self.assertEqual(Plugin.asksForGpu(), asked)
                self.assertEqual(Siamese2DProtClassify().useGpu.get(), asked)

    def testDefineBinariesOffersBothAndRunsNothing(self):
        env = mock.Mock()
        with mock.patch("subprocess.run") as run, mock.patch("os.system") as system:
            Plugin.defineBinaries(env)
        run.assert_not_called()
        system.assert_not_called()
        packages = {call.args[0]: call.kwargs for call in env.addPackage.call_args_list}
        self.assertEqual(set(packages), {CONDA_PACKAGE, VENV_PACKAGE})
        self.assertTrue(packages[CONDA_PACKAGE]["default"])
        self.assertFalse(packages[VENV_PACKAGE]["default"])
        for package in packages.values():
            self.assertEqual([target for _, target in package["commands"]], [INSTALLED_MARKER])
            self.assertTrue(package["url"].startswith("file:"), "a package must not be looked for on a server")
            self.assertNotIn("vars", package)

    def testDefineBinariesWorksWithScipionsEnvironment(self):
        from scipion.install.funcs import Environment
        env = Environment()
        with mock.patch.object(env, "getEmFolder", return_value=self.root, create=True):
            Plugin.defineBinaries(env)
        self.assertIn(f"{VENV_PACKAGE}-{VERSION}", env._targetDict)
        self.assertIn(f"{CONDA_PACKAGE}-{VERSION}", env._targetDict)


class TestVenvRecipeRuns(EnvironmentTest):
    """The recipe as it is, on an engine that needs nothing: seconds instead of minutes."""

    def setUp(self):
        super().setUp()
        self.source = os.path.join(self.folder, "read only plugin", "engine")
        package = os.path.join(self.source, "siamese2d_engine")
        os.makedirs(package)
        with open(os.path.join(package, "__init__.py"), "w") as module:
            module.write(f'"""Stand-in."""\n__version__ = "{VERSION}"\n\ndef main():\n    print(\'{GOOD_REPORT}\')\n')
        shutil.copy(os.path.join(Plugin.getEngineFolder(), "pyproject.toml"), self.source)
        self.edit("siamese2d_engine.cli.main:main", "siamese2d_engine:main")
        self.enter(mock.patch.object(Plugin, "getEngineFolder", return_value=self.source))
        Plugin._vars[PIP_ARGS] = "--no-deps"
        self.build = Plugin.getVenvFolder()
        os.makedirs(self.build)

    def edit(self, old, new):
        path = os.path.join(self.source, "pyproject.toml")
        with open(path) as project:
            text = project.read()
        self.assertIn(old, text)
        with open(path, "w") as project:
            project.write(text.replace(old, new))

    def runRecipe(self):
        return subprocess.run(Plugin.getVenvCommand(), shell=True, cwd=self.build, capture_output=True, text=True)

    def testBuildsFromAFolderThatCantBeWritten(self):
        before = listing(self.source)
        for base, folders, files in os.walk(self.source):
            for name in (*files, "."):
                path = os.path.join(base, name)
                os.chmod(path, os.stat(path).st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        done = self.runRecipe()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(listing(self.source), before)
        self.assertTrue(os.path.exists(os.path.join(self.build, INSTALLED_MARKER)))
        self.assertEqual(Plugin.validateInstallation(), [])
        self.assertEqual(Plugin.handshake()["devices"], ["cpu", "cuda:0"])

    def testFailedBuildIsNotTakenAsInstalled(self):
        self.edit('build-backend = "flit_core.buildapi"', 'build-backend = "no_such_backend"')
        self.assertNotEqual(self.runRecipe().returncode, 0)
        self.assertFalse(os.path.exists(os.path.join(self.build, INSTALLED_MARKER)))
        self.assertIn("is not built", Plugin.validateInstallation()[0])
        self.edit('build-backend = "no_such_backend"', 'build-backend = "flit_core.buildapi"')
        self.assertEqual(self.runRecipe().returncode, 0)
        self.assertEqual(Plugin.validateInstallation(), [])

    def testEngineThatDoesNotStartFailsTheBuild(self):
        with open(os.path.join(self.source, "siamese2d_engine", "__init__.py"), "a") as module:
            module.write("raise ImportError('a library is missing')\n")
        self.assertNotEqual(self.runRecipe().returncode, 0)
        self.assertFalse(os.path.exists(os.path.join(self.build, INSTALLED_MARKER)))


class TestHandshake(EnvironmentTest):
    def site(self, script):
        os.environ[ENV_ACTIVATION] = self.makeEnvironment(os.path.join(self.folder, "site env"), script)

    def problem(self):
        problems = Plugin.validateInstallation()
        self.assertEqual(len(problems), 1)
        return problems[0]

    def testNothingBuiltNamesTheCommands(self):
        with mock.patch("subprocess.run") as run:
            problem = self.problem()
        run.assert_not_called()
        self.assertIn(f"scipion3 installb {VENV_PACKAGE}-{VERSION}", problem)
        self.assertIn(f"scipion3 installb {CONDA_PACKAGE}-{VERSION}", problem)
        self.assertIn(ENV_ACTIVATION, problem)

    def testGood(self):
        self.site(f"echo 'activated something'; echo '{GOOD_REPORT}'")
        self.assertEqual(Plugin.validateInstallation(), [])
        self.assertEqual(Plugin.handshake()["torch"], "2.13.0")

    def testAskedOncePerProcess(self):
        self.site(f"echo asked >> '{self.folder}/count'; echo '{GOOD_REPORT}'")
        for _ in range(3):
            Plugin.handshake()
        with open("count") as count:
            self.assertEqual(len(count.readlines()), 1)

    def testChildrenNeedNotAsk(self):
        self.site(f"echo asked >> '{self.folder}/count'; echo '{GOOD_REPORT}'")
        Plugin.handshake()
        Plugin._handshakes.clear()
        self.assertEqual(Plugin.handshake()["devices"], ["cpu", "cuda:0"])
        with open("count") as count:
            self.assertEqual(len(count.readlines()), 1)

    def testAnswerOfAnotherEnvironmentDoesNotCount(self):
        self.site(f"echo '{GOOD_REPORT}'")
        Plugin.handshake()
        os.environ[ENV_ACTIVATION] = ". /no/such/env/bin/activate"
        self.assertIn("/no/such/env/bin/activate", self.problem())

    def testMendedEnvironmentIsFoundWithoutRestart(self):
        self.site("exit 1")
        self.problem()
        shutil.rmtree("site env")
        self.site(f"echo '{GOOD_REPORT}'")
        self.assertEqual(Plugin.validateInstallation(), [])

    def testWrongVersion(self):
        self.site("echo '{\"version\": \"0.0.9\", \"devices\": [\"cpu\"]}'")
        problem = self.problem()
        self.assertIn(f"is version {VERSION}", problem)
        self.assertIn("version 0.0.9", problem)
        self.assertIn(f"pip install {Plugin.getEngineFolder()}", problem)

    def testBrokenEnvironmentRepeatsWhatItSaid(self):
        self.site("echo \"ImportError: libcudart.so.13: cannot open shared object file\" >&2; exit 1")
        problem = self.problem()
        self.assertIn("libcudart.so.13", problem)
        self.assertIn("status 1", problem)
        self.assertIn(ENV_ACTIVATION, problem)

    def testMissingActivation(self):
        os.environ[ENV_ACTIVATION] = ". /no/such/env/bin/activate"
        self.assertIn("/no/such/env/bin/activate", self.problem())

    def testRemovedManagedEnvironmentNamesTheRebuild(self):
        folder = self.mark(VENV_PACKAGE)
        problem = self.problem()
        self.assertIn(f"rm {folder}/{INSTALLED_MARKER}", problem)
        self.assertIn(f"scipion3 installb {VENV_PACKAGE}-{VERSION}", problem)

    def testSilence(self):
        self.site("exit 0")
        self.assertIn("it said nothing", self.problem())

    def testNoAnswerInTime(self):
        self.site("sleep 60")
        with mock.patch.object(siamese2d, "HANDSHAKE_SECONDS", 1):
            self.assertIn("gave no answer within 1 s", self.problem())

    def testStandInForConda(self):
        """Scipion's conda activation, then ours, in the shell that protocols use."""
        self.mark(CONDA_PACKAGE)
        self.makeEnvironment(os.path.join(self.folder, "envs", CONDA_ENV_NAME), f"echo '{GOOD_REPORT}'")
        hook = f'conda() {{ [ "$1" = activate ] && . "{self.folder}/envs/$2/bin/activate"; }}'
        with mock.patch.object(Plugin, "_condaActivationCmd", f"{hook} &&"):
            self.assertEqual(Plugin.validateInstallation(), [])
            os.environ[ENV_ACTIVATION] = "conda activate another"
            self.assertIn("conda activate another", self.problem())


class TestArguments(unittest.TestCase):
    def testShellSeesThemUnchanged(self):
        arguments = ["--out", "a folder/with 'quotes' and $HOME", "50%"]
        line = quoteArguments(arguments)
        seen = subprocess.run(f"printf '%s\\n' {line}", shell=True, capture_output=True, text=True).stdout.splitlines()
        self.assertEqual(seen, arguments)

    def testGpuPlaceholderIsFilledByScipion(self):
        line = quoteArguments(["--out", "50%", "--device", "cuda:%(GPU)s"]) % {"GPU": "3"}
        seen = subprocess.run(f"printf '%s\\n' {line}", shell=True, capture_output=True, text=True).stdout.splitlines()
        self.assertEqual(seen, ["--out", "50%", "--device", "cuda:3"])


class TestFailures(EnvironmentTest):
    def testExceptionTypeIsScipions(self):
        with mock.patch.object(Plugin, "_ask", return_value={}), mock.patch.object(Plugin, "_requireBuilt"):
            with self.assertRaises(ValidationException):
                Plugin.handshake()


def listing(folder):
    """All paths below a folder."""
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names)
