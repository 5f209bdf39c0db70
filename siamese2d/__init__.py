"""Scipion plugin for 2D classification of cryo-EM particles with learnt similarity."""

import glob
import json
import os
import re
import shlex
import subprocess
import sys

import pwem
import pyworkflow.utils as pwutils
from pyworkflow import VarTypes
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import (CONDA_ENV_NAME, CONDA_PACKAGE, CONDA_PYTHON, ENGINE_LAUNCHER, ENGINE_PROGRAM,
                                 ENV_ACTIVATION, HANDSHAKE, INSTALLED_MARKER, PIP_ARGS, PYTHON, TORCH_BUILD, TORCH_CPU,
                                 TORCH_CUDA, VENV_FOLDER, VENV_PACKAGE, VERSION)

__version__ = VERSION
_logo = "siamese2d_logo.png"
_references = ["Bepler2019", "Chen2020"]

HANDSHAKE_SECONDS = 180
GPU_DEVICES = "/dev/nvidia[0-9]*"
NO_CPU_BUILD = ("The package indexes in use hold no CPU build of torch: the general one is taken, which is larger. To "
                f"get the CPU build, add the index that PyTorch's installation page names to {PIP_ARGS}.")


class Plugin(pwem.Plugin):
    _url = "https://github.com/scipion-em/scipion-em-siamese2d"
    _supportedVersions = [VERSION]

    # What the environment answered, by the command that activates it: asked once per process and its children.
    _handshakes = {}

    @classmethod
    def _defineVariables(cls):
        cls._defineVar(ENV_ACTIVATION, f"conda activate {CONDA_ENV_NAME}", var_type=VarTypes.STRING,
                       description="Command that activates the environment of siamese2d. When it is not set, the venv "
                                   "package is used if it is built, else the conda environment.")
        cls._defineVar(TORCH_BUILD, TORCH_CUDA, var_type=VarTypes.STRING,
                       description="Build of torch for new environments: cuda or cpu. Once it is set, forms ask for a "
                                   "GPU with cuda and not with cpu; else where this machine has one.")
        cls._defineVar(PIP_ARGS, "", var_type=VarTypes.STRING,
                       description="More arguments of pip when the environment is built, e.g. another package index, "
                                   "or '--no-index --find-links FOLDER' where there is no network.")
        cls._defineVar(PYTHON, _defaultPython(), var_type=VarTypes.STRING,
                       description="Python (3.10 or newer) from which the venv package is made.")

    # --------------------------- the environment --------------------------------------
    @classmethod
    def getEngineFolder(cls):
        """Folder of the engine's source, from which its environment is built."""
        return os.path.join(os.path.dirname(os.path.abspath(__file__)), "engine")

    @classmethod
    def getVenvFolder(cls):
        """Folder of the venv package, built or not."""
        return os.path.join(pwem.Config.EM_ROOT, f"{VENV_PACKAGE}-{VERSION}")

    @classmethod
    def getCondaFolder(cls):
        """Folder with the marker of the conda package, built or not."""
        return os.path.join(pwem.Config.EM_ROOT, f"{CONDA_PACKAGE}-{VERSION}")

    @classmethod
    def isSiteActivation(cls):
        """Whether the site chose the environment itself."""
        return bool(os.environ.get(ENV_ACTIVATION))

    @classmethod
    def getEnvActivation(cls):
        """Command that activates the environment: the site's choice, else the venv if it is built, else conda's."""
        if cls.isSiteActivation():
            return os.environ[ENV_ACTIVATION]
        if _isBuilt(cls.getVenvFolder()):
            return ". " + shlex.quote(os.path.join(cls.getVenvFolder(), VENV_FOLDER, "bin", "activate"))
        return f"conda activate {CONDA_ENV_NAME}"

    @classmethod
    def getActivationCmd(cls):
        """The environment's activation, with conda's own activation before it only if it is a conda environment."""
        activation = cls.getEnvActivation()
        prefix = cls.getCondaActivationCmd() if activation.split()[0] == "conda" else ""
        return f"{prefix or ''} {activation}".strip()

    @classmethod
    def getProgram(cls, processes=1):
        """Shell command that starts the engine in its environment, as one process or as several that share the work."""
        engine = ENGINE_PROGRAM if processes == 1 else ENGINE_LAUNCHER.format(processes=processes)
        return f"{cls.getActivationCmd()} && {engine}"

    @classmethod
    def asksForGpu(cls):
        """Whether forms ask for a GPU unless told otherwise: where the site says so, else where this machine has one."""
        build = os.environ.get(TORCH_BUILD)
        return build != TORCH_CPU if build else bool(glob.glob(GPU_DEVICES))

    @classmethod
    def getEnviron(cls):
        """Variables for the engine's processes: Scipion's, without those that would mix both Python installations."""
        environ = pwutils.Environ(os.environ)
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environ.pop(name, None)
        environ["PYTHONNOUSERSITE"] = "1"
        return environ

    # --------------------------- installation -----------------------------------------
    @classmethod
    def getDependencies(cls):
        """Programs that the conda package needs in PATH."""
        return [] if cls.getCondaActivationCmd() else ["conda"]

    @classmethod
    def defineBinaries(cls, env):
        cls._addEnvironment(env, VENV_PACKAGE, cls.getVenvCommand(), default=False, neededProgs=[])
        cls._addEnvironment(env, CONDA_PACKAGE, cls.getCondaCommand(), default=True, neededProgs=cls.getDependencies())

    @classmethod
    def _addEnvironment(cls, env, package, command, default, neededProgs):
        # The marker is made by the last link of the chain, so a build that broke is tried again, not taken as done.
        # The url is only there because a package without an archive is otherwise looked for on Scipion's server.
        env.addPackage(package, version=VERSION, tar="void.tgz", url="file:/dev/null",
                       commands=[(command, INSTALLED_MARKER)], neededProgs=neededProgs, default=default)

    @classmethod
    def getVenvCommand(cls):
        """Shell command that builds the environment with venv and pip in the current folder."""
        python = shlex.quote(cls.getVar(PYTHON))
        return cls._chain(f"{python} -m venv --clear {VENV_FOLDER}", f". {VENV_FOLDER}/bin/activate")

    @classmethod
    def getCondaCommand(cls):
        """Shell command that builds the environment with conda and pip."""
        prefix = cls.getCondaActivationCmd() or ""
        return cls._chain(f"{prefix} conda create -y -n {CONDA_ENV_NAME} python={CONDA_PYTHON}".strip(),
                          f"conda activate {CONDA_ENV_NAME}")

    @classmethod
    def _chain(cls, create, activate):
        return " && ".join([
            "unset PYTHONPATH PYTHONHOME",
            _checkTorchBuild(cls.getVar(TORCH_BUILD)),
            create,
            activate,
            cls.getPipCommand(),
            f"{ENGINE_PROGRAM} check",
            f"touch {INSTALLED_MARKER}",
        ])

    @classmethod
    def getPipCommand(cls):
        """pip command that installs the engine and all that it needs into the active environment."""
        install = f"python -m pip install {cls.getVar(PIP_ARGS)}".strip()
        engine = f"{install} {shlex.quote(cls.getEngineFolder())}"
        if cls.getVar(TORCH_BUILD) != TORCH_CPU:
            return engine
        # The CPU build is a version of its own, which only some indexes hold; the general one runs on processors too.
        torch = f"{install} --no-deps {_pinnedTorch(cls.getEngineFolder())}+cpu"
        return f"{{ {torch} || echo {shlex.quote(NO_CPU_BUILD)}; }} && {engine}"

    # --------------------------- handshake --------------------------------------------
    @classmethod
    def validateInstallation(cls):
        """What is missing and which command mends it; an empty list when the environment answers as it should."""
        try:
            cls.handshake()
        except ValidationException as problem:
            return [str(problem)]
        return []

    @classmethod
    def handshake(cls):
        """Ask the environment for its versions and devices.

        Returns
        -------
        dict
            ``version``, ``torch`` and ``devices`` (a list such as ``["cpu", "cuda:0"]``).

        Raises
        ------
        ValidationException
            If there is no environment, it does not work, or it belongs to another version of the plugin.
        """
        program = cls.getProgram()
        if program not in cls._handshakes:
            cls._requireBuilt()
            cls._handshakes[program] = _inheritedHandshake(program) or cls._checkVersion(cls._ask(program))
            # Starting torch takes seconds; the processes of protocols, which this one starts, need not ask again.
            os.environ[HANDSHAKE] = json.dumps({"program": program, "report": cls._handshakes[program]})
        return cls._handshakes[program]

    @classmethod
    def _requireBuilt(cls):
        if cls.isSiteActivation() or _isBuilt(cls.getVenvFolder()) or _isBuilt(cls.getCondaFolder()):
            return
        # The list of binaries shows [X] as soon as the folder is there.
        started = any(os.path.isdir(folder) for folder in (cls.getVenvFolder(), cls.getCondaFolder()))
        state = "is not built: its installation was started but did not finish" if started else "is not built"
        raise ValidationException(
            f"The environment of siamese2d {state}. Build it with `scipion3 installb {VENV_PACKAGE}-{VERSION}` (needs "
            f"no conda) or `scipion3 installb {CONDA_PACKAGE}-{VERSION}` (conda), or set {ENV_ACTIVATION} to the "
            "command that activates an environment that holds it.")

    @classmethod
    def _ask(cls, program):
        try:
            answer = subprocess.run(f"{program} check", shell=True, env=cls.getEnviron(), stdin=subprocess.DEVNULL,
                                    capture_output=True, text=True, timeout=HANDSHAKE_SECONDS)
        except subprocess.TimeoutExpired:
            raise ValidationException(f"The environment of siamese2d gave no answer within {HANDSHAKE_SECONDS} s to "
                                      f"`{program} check`. {cls._remedy()}") from None
        report = _lastJsonLine(answer.stdout)
        if answer.returncode == 0 and report is not None:
            return report
        said = answer.stderr.strip().splitlines() or answer.stdout.strip().splitlines() or ["it said nothing"]
        raise ValidationException(f"The environment of siamese2d does not work: `{program} check` ended with status "
                                  f"{answer.returncode} ({said[-1].strip()}). {cls._remedy()}")

    @classmethod
    def _checkVersion(cls, report):
        if report.get("version") == VERSION:
            return report
        raise ValidationException(f"The plugin siamese2d is version {VERSION}, but its environment (`"
                                  f"{cls.getEnvActivation()}`) holds version {report.get('version')}. {cls._remedy()}")

    @classmethod
    def _remedy(cls):
        if cls.isSiteActivation():
            return (f"The environment is chosen by {ENV_ACTIVATION}: correct that variable, or activate the "
                    f"environment and run `{cls.getPipCommand()}`.")
        venv = _isBuilt(cls.getVenvFolder())
        package, folder = (VENV_PACKAGE, cls.getVenvFolder()) if venv else (CONDA_PACKAGE, cls.getCondaFolder())
        return (f"Build it again: `rm {shlex.quote(os.path.join(folder, INSTALLED_MARKER))}` and then `scipion3 "
                f"installb {package}-{VERSION}`.")

    # --------------------------- running ----------------------------------------------
    @classmethod
    def runEngine(cls, protocol, args, processes=1):
        """Run one sub-command of the engine as a job of `protocol`.

        Parameters
        ----------
        protocol : pyworkflow.protocol.Protocol
            Its log gets the command and the output.
        args : list of str
            Sub-command and arguments; ``%(GPU)s`` is replaced by the numbers of the GPUs that Scipion assigned.
        processes : int
            One for each GPU.

        Raises
        ------
        subprocess.CalledProcessError
            If the engine fails; it has said why on standard error and in its ``run.json``.
        """
        protocol.runJob(cls.getProgram(processes), quoteArguments(args), env=cls.getEnviron(), numberOfMpi=1)


def quoteArguments(args):
    """Arguments as one line for the shell; per cent signs survive Scipion's substitution of ``%(GPU)s``."""
    line = " ".join(shlex.quote(str(arg)) for arg in args)
    placeholder = "%(GPU)s"
    if placeholder not in line:
        return line
    return placeholder.join(part.replace("%", "%%") for part in line.split(placeholder))


def load_tests(loader, tests, pattern):
    """Make `scipion tests siamese2d` find the tests."""
    folder = os.path.dirname(os.path.abspath(__file__))
    return loader.discover(os.path.join(folder, "tests"), pattern="test*.py", top_level_dir=os.path.dirname(folder))


def _defaultPython():
    # Scipion's own Python may be too old for the engine.
    return sys.executable if sys.version_info >= (3, 10) else "python3"


def _inheritedHandshake(program):
    """What the environment answered the process that started this one; None if that did not ask, or another one."""
    known = json.loads(os.environ.get(HANDSHAKE, "{}"))
    return known["report"] if known.get("program") == program else None


def _isBuilt(folder):
    return os.path.exists(os.path.join(folder, INSTALLED_MARKER))


def _checkTorchBuild(build):
    if build in (TORCH_CPU, TORCH_CUDA):
        return "true"
    message = f"{TORCH_BUILD} is {build}, but must be {TORCH_CPU} or {TORCH_CUDA}."
    return f"{{ echo {shlex.quote(message)} >&2; false; }}"


def _pinnedTorch(engineFolder):
    with open(os.path.join(engineFolder, "pyproject.toml")) as project:
        return re.search(r'"(torch) *(==[^"]+)"', project.read()).expand(r"\1\2")


def _lastJsonLine(text):
    # Activating an environment may print lines of its own before the answer.
    for line in reversed(text.splitlines()):
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict):
            return report
    return None
