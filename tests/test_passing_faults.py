"""Passing faults of a file system: sound results are never taken for damaged ones."""

import contextlib
import errno
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lth.engine.engine import Engine
from lth.engine.monitor import Watch
from lth.errors import Interrupted, LotteryError
from lth.runs import status
from lth.store import cleanup, files
from lth.store.store import Damaged, Store
from tests.conftest import Composer, run_spec
from tests.engines import again, stopping_every, trainings
from tests.test_store import NODE

PASSING = [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES]
PAUSES = (1.0, 2.0, 4.0)
Failing = Callable[..., None]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of this test, in seconds; none of them is taken."""
    taken: list[float] = []
    monkeypatch.setattr(files, "PAUSES", PAUSES)
    monkeypatch.setattr("lth.store.files.time.sleep", taken.append)
    return taken


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> Failing:  # noqa: ARG001
    """Let the next `times` readings of files called `name` fail with an error number."""
    read_bytes = Path.read_bytes
    left: dict[str, list[int]] = {}

    def read(path: Path) -> bytes:
        if left.get(path.name):
            raise OSError(left[path.name].pop(), "injected", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    return lambda name, number, times: left.update({name: [number] * times})


@contextlib.contextmanager
def no_free_descriptor() -> Iterator[None]:
    """A process that may open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def stored(tmp_path: Path) -> Store:
    """A new view of a store with one node."""
    Store(tmp_path / "store").publish(NODE, {"a": b"1"})
    return Store(tmp_path / "store")


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("name", ["a", "done"])
def test_a_fault_that_passes_is_waited_for(
    stored: Store, failing: Failing, slept: list[float], number: int, name: str
) -> None:
    failing(name, number, 2)
    assert stored.read(NODE, "a") == b"1"
    assert slept == [1, 2]


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("name", ["a", "done"])
def test_a_fault_that_stays_is_an_error_and_moves_nothing(
    stored: Store, failing: Failing, slept: list[float], number: int, name: str
) -> None:
    failing(name, number, 4)
    with pytest.raises(LotteryError, match=rf"{NODE.digest}/{name}: cannot be read \(injected\)"):
        stored.read(NODE, "a")
    assert slept == [1, 2, 4]
    failing(name, number, 4)
    with pytest.raises(LotteryError, match="cannot be read"):
        stored.set_aside(NODE)
    assert stored.is_whole(NODE)


def test_without_free_descriptors_nothing_is_damaged(stored: Store, slept: list[float]) -> None:
    with no_free_descriptor(), pytest.raises(LotteryError, match="Too many open files"):
        stored.read(NODE, "a")
    assert slept == [1, 2, 4]
    assert stored.is_whole(NODE)
    assert not stored.damaged.exists()


def test_a_missing_file_is_damage_at_once(stored: Store, slept: list[float]) -> None:
    (stored.path(NODE) / "a").unlink()
    with pytest.raises(Damaged, match="a is missing"):
        stored.read(NODE, "a")
    assert slept == []


def test_an_engine_stops_and_later_finds_everything(
    engine: Engine, tiny: Composer, failing: Failing
) -> None:
    (dense,) = trainings(tiny("pruning.levels=0"))
    dict(engine.ensure([dense]))
    failing("curve.csv", errno.EMFILE, 4)
    with pytest.raises(LotteryError, match=r"curve\.csv: cannot be read"):
        dict(again(engine).ensure([dense]))
    later = again(engine)
    dict(later.ensure([dense]))
    assert (later.trained, later.damaged) == (0, [])


def test_a_training_goes_on_from_a_checkpoint_that_could_not_be_read_at_first(
    engine: Engine, tiny: Composer, failing: Failing
) -> None:
    (dense,) = trainings(tiny("pruning.levels=0"))
    with pytest.raises(Interrupted):
        dict(again(engine, Watch(stopping=stopping_every(10))).ensure([dense]))
    failing(dense.digest, errno.ESTALE, 2)
    saved = engine.maker.checkpoint(dense)
    assert saved is not None
    assert saved.iteration > 0
    failing(dense.digest, errno.ESTALE, 4)
    with pytest.raises(LotteryError, match="cannot be read"):
        engine.maker.checkpoint(dense)


@pytest.fixture
def cleaned(tiny: Composer, tmp_path: Path) -> Store:
    """A store with two levels of one run."""
    run_spec(tiny("pruning.levels=1", f"store={tmp_path}/store"), tmp_path / "runs" / "0")
    return Store(tmp_path / "store")


def test_cleanup_waits_for_descriptions_and_run_records(
    cleaned: Store, tmp_path: Path, failing: Failing
) -> None:
    for name in ("node.json", "run.json", "levels.csv"):
        failing(name, errno.EIO, 2)
        needs = status.needs_of([tmp_path / "runs" / "0"])
        assert cleanup.unused(cleanup.entries(cleaned), needs.trainings) == []
        failing(name, errno.EIO, 4)
        with pytest.raises(LotteryError, match=rf"{name}: cannot be read"):
            cleanup.unused(
                cleanup.entries(cleaned), status.needs_of([tmp_path / "runs" / "0"]).trainings
            )


def test_a_run_is_not_called_unreadable_for_a_fault_that_passes(
    cleaned: Store, failing: Failing
) -> None:
    run = cleaned.root.parent / "runs" / "0"
    failing("run.json", errno.ESTALE, 2)
    assert status.state_of(run) == "finished"
    failing("run.json", errno.ESTALE, 4)
    assert status.state_of(run) == "unreadable"


def test_runs_that_cannot_be_listed_are_an_error_and_not_unused(cleaned: Store) -> None:
    with no_free_descriptor(), pytest.raises(LotteryError, match="Too many open files"):
        list(status.find_runs(cleaned.root.parent / "runs"))


def test_verification_names_what_it_cannot_read_and_goes_on(
    cleaned: Store, failing: Failing
) -> None:
    first, second = cleanup.entries(cleaned)
    (second.path / "mask.safetensors").unlink()
    failing("curve.csv", errno.EIO, 4)
    (fault,) = cleanup.faults_of_files(first)
    assert "curve.csv: cannot be read (injected)" in fault
    assert list(cleanup.faults_of_files(second)) == ["mask.safetensors is missing"]
    shutil.rmtree(first.path)
    assert list(cleanup.faults_of_files(first)) == ["it has no valid done file"]
