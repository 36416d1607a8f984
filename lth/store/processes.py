"""Tell processes of this host apart, whatever happens to its clock.

A process number is reused, and the time at which a process started is computed from the clock,
which may be set. On Linux, a process is identified by its boot and by the ticks from the boot to
its start. Where there is no /proc, it is identified by its start time as psutil gives it.

A process that has ended stays in the list of processes until its parent asks how. Nobody may ask in
a container whose first process is not an init, so such a process counts as gone.
"""

from pathlib import Path

import psutil

PROC = Path("/proc")
ENDED = (b"Z", b"X")
"""States of processes that have ended."""


def start_of(pid: int) -> str | None:
    """Return what no other process of this number has on this host, or None if there is no such
    process, or if it has ended. Raises OSError or psutil.Error if it cannot be examined."""
    boot = PROC / "sys/kernel/random/boot_id"
    if not boot.exists():
        return _start_time(pid)
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if psutil.pid_exists(pid):  # some hosts hide the processes of others
            raise psutil.AccessDenied(pid) from None
        return None
    # The command name, field 2, may contain spaces and parentheses. The state is field 3.
    fields = stat.rpartition(b")")[2].split()
    state, start = fields[0], int(fields[19])
    return None if state in ENDED else f"{boot.read_text().strip()} {start}"


def _start_time(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return None if ended else repr(process.create_time())
    except psutil.NoSuchProcess:
        return None
