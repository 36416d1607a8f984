"""Check where a command writes to, before it reads runs for minutes."""

from pathlib import Path

from lth.errors import LotteryError


def check_out_file(out: Path, suffix: str = "") -> None:
    """Raise LotteryError if `--out` names a folder, or a file of another kind than `suffix`."""
    if out.is_dir():
        raise LotteryError(
            f"--out must be a file, and {out.absolute()} is a folder. Name a file in it."
        )
    if suffix and out.suffix != suffix:
        raise LotteryError(f"--out must be a {suffix} file, got {out}. Name it {out.stem}{suffix}")


def check_out_folder(out: Path) -> None:
    """Raise LotteryError if `--out` names a file."""
    if out.exists() and not out.is_dir():
        raise LotteryError(
            f"--out must be a folder, and {out.absolute()} is a file. Name another one."
        )
