"""Ask a SLURM cluster for its limits. Each function returns nothing known if it cannot be asked."""

import re
import subprocess


def scontrol_show(*what: str) -> str:
    """Return what `scontrol show` prints; nothing if it cannot be run or fails."""
    try:
        command = ["scontrol", "--all", "--oneliner", "show", *what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def largest_array(config: str) -> int | None:
    """Return how many jobs one array may have: their indices start at 0 and must be less than
    MaxArraySize. `config`: the output of `scontrol show config`."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return max(int(found[1]), 1) if found else None  # 0: no arrays, only single jobs


def cancelling(partitions: str, wanted: str | None) -> list[str]:
    """Return which of the partitions cancel pre-empted jobs. `partitions`: the output of `scontrol
    show partition`; `wanted`: names separated by commas, or None for the default partition."""
    names = wanted.split(",") if wanted else []
    return [
        name
        for name, line in re.findall(r"^PartitionName=(\S+) (.*)", partitions, re.MULTILINE)
        if (name in names if names else "Default=YES" in line.split())
        and re.search(r"\bPreemptMode=\S*CANCEL", line)
    ]
