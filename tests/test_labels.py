"""Titles name the code that ran, and rates are in numerical order."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.collect import collect
from analysis.labels import arm_labels, shared_settings
from analysis.sample import FINAL, reported_accuracy
from analysis.tables import level_tables
from lth.experiment import lottery
from lth.experiment.names import arm_name
from lth.experiment.recipe import identity
from tests.conftest import Composer
from tests.test_analysis import write_run


def network_of(folder: Path, *, model: str, dataset: str, **names: Any) -> str:  # noqa: ANN401
    """Return how a run is titled that was started with these options and ran `names`."""
    settings = {name.replace("__", "."): value for name, value in names.items()}
    write_run(folder, seed=0, settings=settings, groups={"model": model, "dataset": dataset})
    return str(collect([folder]).levels["network"].iloc[0])


def ran(model: str, loader: str) -> dict[str, str]:
    return {"model__name": model, "dataset__loader__name": loader}


@pytest.mark.parametrize(("options", "names", "title"), [
    (("own", "digits"), ran("mine.Net", "mine.blobs"), "mine.Net on mine.blobs"),
    (("lenet_300_100", "digits"), ran("mine.Net", "digits"), "mine.Net on digits"),
    (("lenet_300_100", "digits"), ran("lenet", "digits"), "lenet_300_100 on digits"),
    (("own", "digits"), ran("lenet", "digits"), "lenet on digits"),
    (("lenet_300_100", "digits"), ran("conv", "mnist"), "conv on mnist"),
    (("vgg11", "cifar10_jpeg"), ran("vgg", "image_folder"), "vgg11 on cifar10_jpeg"),
    (("no_more", "no_more"), ran("lenet", "mnist"), "no_more on no_more"),
    (("lenet_300_100", "digits"), {}, "lenet_300_100 on digits"),  # an old run.json
])  # fmt: skip
def test_a_title_names_what_ran(
    tmp_path: Path, options: tuple[str, str], names: dict[str, str], title: str
) -> None:
    model, dataset = options
    assert network_of(tmp_path / "0", model=model, dataset=dataset, **names) == title


def test_a_smoke_test_is_titled_by_the_dataset_that_it_stands_for(tmp_path: Path) -> None:
    groups = {"model": "lenet_300_100", "dataset": "mnist"}
    names = {"model.name": "lenet", "dataset.loader.name": "noise"}
    write_run(tmp_path / "0", seed=0, settings=names, groups=groups, spec={"smoke": True})
    network = collect([tmp_path]).levels["network"].iloc[0]
    assert network == "lenet_300_100 on mnist (smoke: made-up data)"


def test_versions_of_own_code_are_different_experiments(tmp_path: Path) -> None:
    for number, code in enumerate(("sha256:aa34567890123456", "sha256:bb34567890123456")):
        write_run(tmp_path / f"{number}", seed=0,
                  settings={"model.name": "mine.Net", "model.code": code})  # fmt: skip
    assert set(collect([tmp_path]).levels["experiment"]) == {
        "mine.Net on digits, model code aa34567", "mine.Net on digits, model code bb34567",
    }  # fmt: skip


def test_own_code_named_like_a_network_of_the_paper_is_not_judged_as_one() -> None:
    assert reported_accuracy({"model": "resnet18"}) == FINAL
    assert reported_accuracy({"model": "resnets.Mine"}) != FINAL


def test_rates_are_in_numerical_order(tmp_path: Path) -> None:
    for rate in (100 / 3, 5.0, 20.0):
        write_run(tmp_path / f"{rate}", seed=0, rate=rate)
    titles = [str(table.title) for table in level_tables(collect([tmp_path]).levels)]
    assert titles == [
        f"lenet_300_100 on digits, {rate} % pruned per level" for rate in ("5", "20", "33.3333")
    ]


def test_arms_with_densities_of_their_own_have_rows_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    write_run(tmp_path / "1", seed=0, arm="supermask")
    table = tmp_path / "1" / "levels.csv"
    table.write_text(table.read_text().replace("\n1,0.5,", "\n1,0.53,"))
    (shown,) = level_tables(collect([tmp_path]).levels)
    level, density, *_ = (list(column.cells) for column in shown.columns)
    assert [*zip(level, density, strict=True)][:3] == [("0", "100.0"), ("1", "53.0"), ("1", "50.0")]


@pytest.mark.parametrize(("words", "setting", "values"), [
    ("pruning=rigl", "pruning.update.fraction", (0.3, 0.5)),
    ("pruning=gradual", "pruning.update.every", (100, 500)),
    ("pruning=early_bird", "pruning.settled.distance", (0.1, 0.05)),
    ("pruning=early_bird", "pruning.scope", ("layerwise", "erk")),
    ("pruning=random", "pruning.scope", ("er", "erk")),
    ("pruning=edge_popup", "pruning.update.lr", (0.1, 0.2)),
    ("source=recipe", "optimizer@source.optimizer", ("sgd", "momentum")),
    ("source=recipe", "source.dataset.train", (600, 5000)),
])  # fmt: skip
def test_runs_with_different_trainings_have_different_labels(
    composed: Composer, words: str, setting: str, values: tuple[object, object]
) -> None:
    specs = [
        composed("preset=lenet", "pruning.rates=[50]", words, f"{setting}={v}") for v in values
    ]
    levels = [dict(lottery.levels(spec))[1] for spec in specs]
    assert levels[0] != levels[1]
    identities = [identity(spec) for spec in specs]
    rows = [
        {**of, "setting": json.dumps(shared_settings(of)), "arm": arm_name(spec)}
        for of, spec in zip(identities, specs, strict=True)
    ]
    assert rows[0]["setting"] == rows[1]["setting"]
    assert len({*arm_labels(rows)}) == 2
