"""Tell processes of this host apart, whatever happens to its clock.

A process number is reused, and the time at which a process started is computed from the clock,
which may be set. On Linux, a process is identified by its boot and by the ticks from the boot to
its start. Where there is no /proc, it is identified by its start time as psutil gives it.
"""

from pathlib import Path

import psutil

PROC = Path("/proc")


def start_of(pid: int) -> str | None:
    """Return what no other process of this number has on this host, or None if there is no such
    process. Raises OSError or psutil.Error if it cannot be examined."""
    boot = PROC / "sys/kernel/random/boot_id"
    if not boot.exists():
        return _start_time(pid)
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if psutil.pid_exists(pid):  # some hosts hide the processes of others
            raise psutil.AccessDenied(pid) from None
        return None
    # The command name, field 2, may contain spaces and parentheses; the start is field 22.
    ticks = stat.rpartition(b")")[2].split()[19]
    return f"{boot.read_text().strip()} {int(ticks)}"


def _start_time(pid: int) -> str | None:
    try:
        return repr(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
