"""Run folders that are repeated, contradictory or damaged; and the labels of the others."""

import json
from pathlib import Path

import pytest

from analysis.collect import collect
from analysis.points import points
from lth.runs.records import sealed
from lth.store.files import checksum
from tests.test_analysis import write_run, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_sweep(tmp_path)
    return tmp_path


def test_a_repeated_run_counts_once(sweep: Path) -> None:
    before = collect([sweep])
    write_run(sweep / "9", seed=0)
    after = collect([sweep])
    assert len(after.levels) == len(before.levels)
    assert len(after.curves(after.levels)) == len(before.curves(before.levels))


def test_runs_that_disagree_are_reported(sweep: Path) -> None:
    write_run(sweep / "9", seed=0, shift=0.5)
    levels = sweep / "9" / "levels.csv"
    levels.write_text(levels.read_text().replace("init-0-2-50.0", "another"))
    assert any("disagree" in problem for problem in collect([sweep]).problems)


def test_draws_of_one_ticket_are_one_result(sweep: Path) -> None:
    for name, source in (("7", "0"), ("8", "3")):
        write_run(sweep / name, seed=0, kind="init" if source == "0" else "reinit")
        run = sweep / name / "run.json"
        run.write_text(run.read_text().replace('"rewind.draw": 0', '"rewind.draw": 1'))
    drawn = sweep / "8" / "levels.csv"
    for level in (1, 2):  # level 0 is the dense network whatever the draw
        drawn.write_text(drawn.read_text().replace(f"reinit-0-{level}", f"another-0-{level}"))
    counts = points(collect([sweep]).levels, "early_stop_iteration").set_index(["arm", "level"])
    assert counts.loc["winning ticket", "n"].tolist() == [3, 3, 3]
    assert counts.loc["random reinit", "n"].tolist() == [3, 4, 3]


@pytest.mark.parametrize(("file", "content"), [
    ("run.json", "{"), ("run.json", "{}"), ("run.json", "[]"),
    ("levels.csv", "level\n0\n"), ("levels.csv", ""), ("metrics.csv", "x\n"),
])  # fmt: skip
def test_a_damaged_run_is_reported_and_the_rest_drawn(sweep: Path, file: str, content: str) -> None:
    (sweep / "1" / file).write_text(content)
    runs = collect([sweep])
    assert any(str(sweep / "1") in problem for problem in runs.problems)
    assert runs.levels["run"].nunique() == 5


@pytest.mark.parametrize("file", ["run.json", "levels.csv", "metrics.csv"])
def test_a_changed_digit_in_what_a_run_wrote_is_never_drawn(tmp_path: Path, file: str) -> None:
    tables = ("levels.csv", "metrics.csv")
    for seed in (0, 1):
        run = tmp_path / f"{seed}"
        write_run(run, seed=seed)
        status = json.loads((run / "run.json").read_text())
        status["tables"] = {name: checksum((run / name).read_bytes()) for name in tables}
        (run / "run.json").write_text(json.dumps(sealed(status)))
    assert collect([tmp_path]).problems == []
    text = (tmp_path / "1" / file).read_text()
    (tmp_path / "1" / file).write_text(text.replace("0", "1", 1))
    runs = collect([tmp_path])
    assert runs.levels["run"].unique() == [str(tmp_path / "0")]
    assert f"{tmp_path / '1'}: left out ({file}" in runs.problems[0]


def test_lists_of_rates_are_named_by_their_ends_where_that_tells_them_apart(sweep: Path) -> None:
    lists: list[list[float]] = [
        [5, 20, 50, 80, 99],
        [5, 20, 60, 80, 98.5],
        [5, 20, 60, 90, 98.5],
        [1, 2],
    ]
    for number, rates in enumerate(lists):
        label = f"{', '.join(f'{rate:g}' for rate in rates)} %"
        write_run(sweep / f"{9 + number}", seed=0, label=label, settings={"pruning.rates": rates})
    assert set(collect([sweep]).levels["rate"]) == {
        "50 %", "5, 20, ..., 99 %", "5, 20, 60, 80, 98.5 %", "5, 20, 60, 90, 98.5 %", "1, 2 %",
    }  # fmt: skip


def test_a_criterion_with_several_options_is_several_arms(sweep: Path) -> None:
    for number, per_class in enumerate((10, 20)):
        write_run(sweep / f"snip{number}", seed=0)
        run = sweep / f"snip{number}" / "run.json"
        own = (
            f'"pruning.criterion.options.per_class": {per_class}, "pruning.criterion.name": "snip"'
        )
        text = run.read_text().replace('"pruning.criterion.name": "magnitude"', own)
        run.write_text(text.replace('"winning ticket"', '"snip"'))
    arms = set(collect([sweep]).levels["arm"])
    assert {"snip, per class 10", "snip, per class 20"} < arms
    (sweep / "snip1" / "run.json").unlink()
    assert "snip" in set(collect([sweep]).levels["arm"])


def test_own_code_that_was_edited_is_another_arm(tmp_path: Path) -> None:
    for number, code in enumerate(("sha256:aa34567", "sha256:bb34567")):
        own = {"pruning.criterion.name": "mine.score", "pruning.criterion.code": code}
        write_run(tmp_path / f"{number}", seed=number, arm="mine.score", settings=own)
    assert set(collect([tmp_path]).levels["arm"]) == {
        "mine.score, criterion code aa34567", "mine.score, criterion code bb34567",
    }  # fmt: skip


def titles_of(folder: Path, *trials: tuple[int, int]) -> dict[str, list[int]]:
    """Write runs with these seeds and splits. Return the seeds of each experiment."""
    for number, (seed, split) in enumerate(trials):
        write_run(folder / f"{number}", seed=seed, settings={"split_seed": split})
    levels = collect([folder]).levels
    return {str(t): sorted(rows["seed"].unique()) for t, rows in levels.groupby("experiment")}


@pytest.mark.parametrize(("trials", "experiments"), [
    ([(0, 0), (1, 1), (2, 2)], {"": [0, 1, 2]}), ([(0, 0), (1, 0), (2, 0)], {"": [0, 1, 2]}),
    ([(0, 0)], {"": [0]}), ([(1, 0), (2, 0)], {"": [1, 2]}),
    ([(0, 0), (1, 1), (2, 0), (3, 0)], {", split_seed own": [0, 1], ", split_seed 0": [0, 2, 3]}),
    ([(0, 0), (1, 0), (0, 1), (1, 1)],
     {", split_seed own": [0, 1], ", split_seed 0": [0, 1], ", split_seed 1": [0, 1]}),
    ([(0, 0), (1, 0), (2, 0), (3, 2)], {", split_seed 0": [0, 1, 2], ", split_seed 2": [3]}),
    ([(1, 1), (2, 0), (3, 0)], {", split_seed own": [1], ", split_seed 0": [2, 3]}),
])  # fmt: skip
def test_trials_with_splits_of_their_own_are_one_experiment(
    tmp_path: Path, trials: list[tuple[int, int]], experiments: dict[str, list[int]]
) -> None:
    found = titles_of(tmp_path, *trials)
    assert found == {f"lenet_300_100 on digits{t}": seeds for t, seeds in experiments.items()}


def test_a_missing_setting_is_not_titled_like_an_empty_one(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0, settings={"model.options.own": None})
    write_run(tmp_path / "1", seed=0)
    titles = set(collect([tmp_path]).levels["experiment"])
    assert titles == {"lenet_300_100 on digits, own None", "lenet_300_100 on digits, own unset"}
