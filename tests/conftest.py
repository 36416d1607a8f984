"""Small experiments that every test file can use."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import settings
from omegaconf import DictConfig

from lth.engine.build import Builder
from lth.engine.engine import Engine
from lth.engine.maker import Maker
from lth.engine.monitor import Watch
from lth.experiment import lottery
from lth.experiment.config import VERSION_BASE, from_config
from lth.experiment.settings import Spec
from lth.runs.folder import RunFolder
from lth.store import files
from lth.store.store import Store
from run import run

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

settings.register_profile("default", max_examples=40)
settings.register_profile("long", max_examples=1000)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

TINY = (
    "model.widths=[6,5]",
    "training.iterations=12",
    "training.evaluate_every=5",
    "training.batch_size=20",
    "pruning.levels=3",
)
"""A network of 64 x 6 + 6 x 5 + 5 x 10 = 464 weights on the digits."""

SIZED = (
    "training.iterations=600", "training.batch_size=60", "dataset.validation=360",
    "dataset.test=360",
)  # fmt: skip
"""Sizes that tests of durations rely on: 1,077 of the 1,797 digits are left for training, which are
17 whole batches."""


class NormNet(torch.nn.Sequential):
    """A convolution, batch norm, dropout and an output layer, for any input of one channel."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        _, height, width = shape
        super().__init__(
            torch.nn.Conv2d(1, 3, 3, padding=1),
            torch.nn.BatchNorm2d(3),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(3 * height * width, classes),
        )


OWN_MODEL = ("~model.widths", "~model.dropout", "~model.init_scale", "~model.truncated")
"""Overrides that remove the options of LeNet, for models of the tests."""
NORM_NET = ("model._target_=tests.conftest.NormNet", *OWN_MODEL, "pruning.levels=1")

Composer = Callable[..., Spec]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAUSES", ())


@pytest.fixture(scope="session")
def composed() -> Composer:
    """The Spec of overrides as typed on the command line. Hydra takes 0.1 s to compose them, so it
    does it once; the Spec also depends on the environment and on files of the user's."""

    @cache
    def compose_once(overrides: tuple[str, ...]) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
            return compose("config", overrides=list(overrides))

    return lambda *overrides: from_config(compose_once(overrides))


@pytest.fixture
def tiny(composed: Composer) -> Composer:
    """The Spec of a run of a fraction of a second, with overrides."""
    return lambda *overrides: composed(*TINY, *overrides)


def run_spec(
    spec: Spec,
    folder: Path,
    stopping: Callable[[], bool] = lambda: False,
    describe: Callable[..., dict[str, Any]] = lambda spec, _: {"spec": dataclasses.asdict(spec)},
) -> None:
    """Do what a Hydra job does in its run folder."""
    requested = lottery.requested(spec)
    with RunFolder(folder, describe(spec, requested)) as output:
        run(spec, requested, output, stopping)


def engine_on(
    store: Path, watch: Watch | None = None, *, pack: int = 1, backend: str = "auto"
) -> Engine:
    """Return an engine with a fresh view of a store: another process, as far as it can tell."""
    build = Builder(Store(store), store.parent / "data", torch.device("cpu"))
    return Engine(Maker(build, 1, backend, watch or Watch()), pack)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """An engine on an empty store."""
    return engine_on(tmp_path / "store")


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a sweep of four arms with a probe."""
    folder = tmp_path_factory.mktemp("clean")
    words = [
        sys.executable, str(ROOT / "run.py"), "-m", *TINY, "store=store",
        "rewind=init,reinit,shuffled,frozen", "probe=connectivity", "probe.points=3",
        "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def browser() -> Iterator["Chrome"]:
    """A real browser without a window; the test is skipped where there is none."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no chromium here: make browser installs it")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()
