"""A real SLURM on this machine, started for the tests."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
CONFIGURATION = """
ClusterName=lth
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MaxArraySize=11
KillWait=20
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
SlurmctldParameters=preempt_send_user_signal
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=spot Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start munged, slurmctld and slurmd, and stop them at the end. Skip where that fails."""
    if os.geteuid() != 0:
        pytest.skip("starting SLURM needs root")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: make slurm-test installs them")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 // 2
    settings = CONFIGURATION.format(
        host=socket.gethostname(), folder=folder, cpus=os.cpu_count(), memory=memory
    )
    (folder / "slurm.conf").write_text(settings)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    if subprocess.run(["pgrep", "munged"], capture_output=True, check=False).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge")
        subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged --force"], check=True)
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon, "-c"], check=True)
    deadline = time.monotonic() + 60
    while "idle" not in _output("sinfo"):
        if time.monotonic() > deadline:
            log = (folder / "slurmctld.log").read_text().splitlines()[-5:]
            pytest.skip(f"SLURM did not come up on this machine: {' | '.join(log)}")
        time.sleep(0.2)
    yield
    subprocess.run(["scancel", "--user", "root"], check=False)
    subprocess.run(["scontrol", "shutdown"], check=True)
