"""A real SLURM of one node, with daemons of its own in a folder of the test's, on ports that are free."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress

import psutil
from lab import free_port

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "squeue")
LIMITED = "limited"
RULE = f"""
local taken = 0
function slurm_job_submit(job, partitions, user)
  if job.comment == "{LIMITED}" then
    taken = taken + 1
    if taken > 1 then
      return slurm.ESLURM_ACCOUNTING_POLICY
    end
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user)
  return slurm.SUCCESS
end
slurm.log_info("rules of the test")
return slurm.SUCCESS
"""
"""How sites refuse jobs by rules of their own: of the jobs with this comment the controller takes one."""


def missing():
    """Why SLURM cannot run here; "" if it can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (make system, as root: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "SLURM's daemons need root"


class Slurm:
    """Starts munged, slurmctld and slurmd; `env` lets SLURM's commands find them."""

    def __init__(self, folder):
        self.folder, self.daemons = folder, []
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.socket = folder / "munge.socket"

    def __enter__(self):
        folder = self.folder
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(mode=0o755)
        (folder / "munge" / "key").write_bytes(os.urandom(1024))
        (folder / "munge" / "key").chmod(0o400)
        (folder / "job_submit.lua").write_text(RULE)
        cores = os.cpu_count()
        host, user = socket.gethostname().partition(".")[0], getpass.getuser()
        (folder / "slurm.conf").write_text(
            f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\n"
            f"SlurmctldPort={free_port()}\nSlurmdPort={free_port()}\n"
            f"AuthType=auth/munge\nAuthInfo=socket={self.socket}\nCredType=cred/munge\n"
            f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
            f"SlurmctldPidFile={folder}/ctld.pid\nSlurmdPidFile={folder}/slurmd.pid\n"
            f"SlurmctldLogFile={folder}/ctld.log\nSlurmdLogFile={folder}/slurmd.log\n"
            "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\nReturnToService=2\n"
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\nMailProg=/bin/true\n"
            "SchedulerParameters=sched_interval=1\nKillWait=2\nJobSubmitPlugins=lua\n"
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} CoresPerSocket={cores} RealMemory=4000\n"
            f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
        )
        munge = folder / "munge"
        self._start(
            "munged", "--foreground", "--force", f"--socket={self.socket}", f"--key-file={munge}/key",
            f"--log-file={munge}/log", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self._wait(self.socket.exists)
        self._start("slurmctld", "-D", "-i")
        self._start("slurmd", "-D")
        self._wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%t"))
        return self

    def _start(self, *command):
        log = (self.folder / f"{command[0]}.out").open("w")
        self.daemons.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True))

    def _wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.[ol][uo][tg]"))
            time.sleep(0.2)

    def run(self, *command, check=False, cwd=None):
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False, cwd=cwd or self.folder
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def __exit__(self, *_):
        with suppress(subprocess.SubprocessError):
            self.run("scancel", "--user", getpass.getuser())
        for daemon in reversed(self.daemons):
            with suppress(psutil.Error):
                for child in psutil.Process(daemon.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        child.kill()
            daemon.terminate()
            try:
                daemon.wait(3)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
