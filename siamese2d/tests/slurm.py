"""A SLURM of one machine, of its own: controller, node and keys in one folder, nothing outside it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from getpass import getuser

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
PATIENCE = 60
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controllerPort}
SlurmdPort={nodePort}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdTimeout=4
KillWait=2
ReturnToService=2
MpiDefault=none
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missingPrograms():
    """What Debian's packages slurmctld, slurmd, slurm-client and munge bring, and this machine lacks."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


class OneMachineSlurm:
    """Runs inside ``with``; `environment` leads SLURM's commands to it.

    Parameters
    ----------
    folder : str
        Made and filled; its path must be short, as it holds a socket.
    """

    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, SLURM_CONF=os.path.join(folder, "slurm.conf"),
                                PATH=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
        self._daemons = {}

    def __enter__(self):
        for name in ("controller", "node"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        os.chmod(self.folder, 0o755)
        self._writeFiles()
        try:
            self._start("munged", "--foreground", "--force", "--key-file", self._file("munge.key"), "--socket",
                        self._file("munge.socket"), "--pid-file", self._file("munge.pid"), "--seed-file",
                        self._file("munge.seed"), "--log-file", self._file("munge.log"))
            self.waitFor(lambda: os.path.exists(self._file("munge.socket")), "munged")
            self._start("slurmctld", "-D", "-c", "-f", self.environment["SLURM_CONF"])
            self.startNode()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in list(self._daemons):
            self._stop(name, signal.SIGTERM)

    def startNode(self):
        """Start the node, and wait until it takes jobs."""
        self._start("slurmd", "-D", "-f", self.environment["SLURM_CONF"])
        self.waitFor(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T"), "the node")

    def killNode(self):
        """The node dies with all that runs on it."""
        for process in self.run("scontrol", "listpids").splitlines()[1:]:
            pid = process.split()[0]
            if pid.isdigit() and int(pid) > 0:
                _kill(int(pid))
        self._stop("slurmd", signal.SIGKILL)

    def jobs(self):
        """Numbers of the jobs that wait or run."""
        return [int(number) for number in self.run("squeue", "--noheader", "--format=%A").split()]

    def unreachable(self):
        """A configuration whose controller answers nobody."""
        with open(self.environment["SLURM_CONF"]) as configuration:
            lines = [line for line in configuration if not line.startswith("SlurmctldPort")]
        with open(self._file("unreachable.conf"), "w") as configuration:
            configuration.writelines([*lines, f"SlurmctldPort={_freePort()}\n"])
        return configuration.name

    def run(self, *command):
        """What one of SLURM's commands prints; nothing when it fails."""
        return subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True).stdout

    def waitFor(self, holds, what):
        """Wait until something holds.

        Raises
        ------
        TimeoutError
            When it takes too long; names the folder with the logs.
        """
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"SLURM: {what} is not ready after {PATIENCE} s; see the logs in {self.folder}.")
            time.sleep(0.2)

    def _writeFiles(self):
        with open(self._file("munge.key"), "wb") as key:
            key.write(os.urandom(128))
        os.chmod(self._file("munge.key"), 0o600)
        with open(self._file("slurm.conf"), "w") as configuration:
            configuration.write(CONFIGURATION.format(
                folder=self.folder, host=socket.gethostname().split(".")[0], user=getuser(), cpus=os.cpu_count(),
                controllerPort=_freePort(), nodePort=_freePort()))

    def _start(self, name, *arguments):
        with open(self._file(f"{name}.out"), "ab") as log:
            self._daemons[name] = subprocess.Popen([name, *arguments], env=self.environment, stdout=log, stderr=log,
                                                   executable=shutil.which(name, path=self.environment["PATH"]))

    def _stop(self, name, how):
        daemon = self._daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _file(self, name):
        return os.path.join(self.folder, name)


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _freePort():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
