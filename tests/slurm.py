"""A real SLURM on one machine, for tests: started as root without systemd, in a folder, on loopback ports.

munged, MariaDB with slurmdbd (Pydra's worker reads exit codes with ``sacct``), slurmctld and slurmd. Every daemon has a
session of its own and writes into files, so that it holds neither the terminal nor the pipes of who started it; all of
them are ended by `Slurm.stop`, and by the kernel should the test process be killed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from free_ports import free_ports

PROGRAMS = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sbatch",
    "sacct",
    "sacctmgr",
)

#: Names of the ports that the daemons listen to, on the loopback.
PORTS = ("database", "slurmdbd", "slurmctld", "slurmd")


def missing() -> str:
    """Return the reason why SLURM cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "SLURM's daemons are started as root only"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"not installed: {', '.join(absent)} (slurm-wlm munge slurmdbd mariadb-server)" if absent else ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Slurm:
    """The daemons, their folder, and the environment in which SLURM's commands find them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.daemons: list[tuple[str, subprocess.Popen[bytes]]] = []
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        self.env = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start all daemons and wait until the node takes jobs.

        Raises
        ------
        RuntimeError
            A daemon ends or does not answer in time; the message holds the end of its log.
        """
        # The accounting database and munge want a folder that others can enter.
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        for name in ("run", "spool", "state"):
            (self.folder / name).mkdir(exist_ok=True)
        self._start_munge()
        self._start_database()
        self._configure()
        self._daemon("slurmdbd", "-D", SLURM_CONF=str(self.folder / "slurmdbd.conf"))
        self._wait("slurmdbd", lambda: self._listens("slurmdbd"))
        self._daemon("slurmctld", "-D", "-f", self.env["SLURM_CONF"])
        self._wait("slurmctld", lambda: self._says("scontrol", "ping", word="UP"))
        self._daemon("slurmd", "-D", "-f", self.env["SLURM_CONF"], "-N", "localnode")
        self._wait("slurmd", lambda: self._says("sinfo", "-h", "-o", "%T", word="idle"))
        self._wait("slurmdbd", lambda: self._says("sacctmgr", "-n", "list", "cluster", word="tests"))

    def stop(self) -> None:
        """End all daemons, the last one first; those that do not listen are killed."""
        for _, daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(5)
        self.daemons.clear()

    def run(self, *command: str, timeout: float = 20) -> str:
        """Output of one of SLURM's commands."""
        done = subprocess.run(
            command,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.stdout + done.stderr

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        run = self.folder / "run"
        places = [f"--{name}={run / f'munge.{name}'}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *places)
        self._wait("munged", (run / "munge.socket").exists)

    def _start_database(self) -> None:
        data, place = self.folder / "database", self.folder / "run" / "database.socket"
        options = ["--no-defaults", f"--datadir={data}", "--user=root"]
        log = (self.folder / "mariadb-install.log").open("wb")
        subprocess.run(
            ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
            env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=120, check=True,
        )  # fmt: skip
        log.close()
        listen = [f"--port={self.ports['database']}", "--bind-address=127.0.0.1", f"--socket={place}"]
        sizes = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"]
        self._daemon("mariadbd", *options, *listen, *sizes, f"--pid-file={self.folder / 'run' / 'database.pid'}")
        sql = "CREATE DATABASE accounting; CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY 'x';"
        sql += "GRANT ALL ON accounting.* TO 'slurm'@'127.0.0.1';"
        self._wait("mariadbd", place.exists)
        said = self.run("mariadb", "--no-defaults", f"--socket={place}", "-u", "root", "-e", sql)
        if said.strip():
            raise RuntimeError(f"the accounting database cannot be made: {said}")

    def _configure(self) -> None:
        munge = f"socket={self.folder / 'run' / 'munge.socket'}"
        dbd = f"""
            AuthType=auth/munge
            AuthInfo={munge}
            DbdHost=localhost
            DbdAddr=127.0.0.1
            DbdPort={self.ports["slurmdbd"]}
            SlurmUser=root
            LogFile={self.folder / "slurmdbd.log"}
            PidFile={self.folder / "run" / "slurmdbd.pid"}
            StorageType=accounting_storage/mysql
            StorageHost=127.0.0.1
            StoragePort={self.ports["database"]}
            StorageUser=slurm
            StoragePass=x
            StorageLoc=accounting
        """
        conf = f"""
            ClusterName=tests
            SlurmctldHost={socket.gethostname()}(127.0.0.1)
            AuthType=auth/munge
            AuthInfo={munge}
            CryptoType=crypto/munge
            SlurmUser=root
            SlurmdUser=root
            SlurmctldPort={self.ports["slurmctld"]}
            SlurmctldPidFile={self.folder / "run" / "slurmctld.pid"}
            SlurmctldLogFile={self.folder / "slurmctld.log"}
            SlurmdPidFile={self.folder / "run" / "slurmd.pid"}
            SlurmdLogFile={self.folder / "slurmd.log"}
            SlurmdSpoolDir={self.folder / "spool"}
            StateSaveLocation={self.folder / "state"}
            ProctrackType=proctrack/linuxproc
            TaskPlugin=task/none
            JobAcctGatherType=jobacct_gather/none
            AccountingStorageType=accounting_storage/slurmdbd
            AccountingStorageHost=127.0.0.1
            AccountingStoragePort={self.ports["slurmdbd"]}
            AccountingStoragePass={self.folder / "run" / "munge.socket"}
            SelectType=select/cons_tres
            SelectTypeParameters=CR_CPU
            SchedulerParameters=sched_interval=1
            MinJobAge=300
            ReturnToService=2
            SlurmdParameters=config_overrides
            MpiDefault=none
            {self._node()}
            PartitionName=all Nodes=localnode Default=YES MaxTime=60 State=UP
            PartitionName=long Nodes=localnode MaxTime=300 State=UP
        """
        for name, text in (("slurmdbd.conf", dbd), ("slurm.conf", conf), ("cgroup.conf", "CgroupPlugin=cgroup/v1")):
            path = self.folder / name
            path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")
            path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)

    def _node(self) -> str:
        where = f"NodeName=localnode NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={self.ports['slurmd']}"
        # CPUs are not counted against the real ones: SLURM takes what stands here where SlurmdParameters says so.
        return f"{where} CPUs={max(2, os.cpu_count() or 2)} RealMemory=8000 State=UNKNOWN"

    def _daemon(self, name: str, *arguments: str, **env: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as log:
            process = subprocess.Popen(
                [name, *arguments],
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the tests run no threads when they start it
            )
        self.daemons.append((name, process))

    def _listens(self, name: str) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def _says(self, *command: str, word: str) -> bool:
        return word in self.run(*command)

    def _wait(self, name: str, ready: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        process = next(daemon for known, daemon in self.daemons if known == name)
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                logs = [self.folder / f"{name}.{ending}" for ending in ("out", "log")]
                said = "\n".join(log.read_text(errors="replace")[-1500:] for log in logs if log.is_file())
                raise RuntimeError(f"{name} did not start (exit code {process.poll()}): {said}")
            time.sleep(0.2)
