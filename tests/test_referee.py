"""Verdicts where the truth is known: simulated studies in worlds of which one is the paper's."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.claims import judged
from analysis.collect import collect
from analysis.winners import winners
from benchmarks import referee
from lth.runs.records import LEVEL_COLUMNS, METRIC_COLUMNS
from tests.test_analysis import write_csv

STUDIES, TRIALS = 12, (5,)
MOST = 0.05
"""The share of false verdicts that the rules allow."""


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return pd.DataFrame(referee.results(STUDIES, TRIALS))


@pytest.mark.parametrize(("verdict", "possible"), [
    ("inconsistent", "world == 'the paper is right' and bound == '='"),
    ("agrees", "world != 'the paper is right' and bound == '='"),
    ("supported", "bound != '='"), ("contradicted", "bound != '='"),
    ("shown", "world == 'no effect'"),
])  # fmt: skip
def test_few_verdicts_are_false(found: pd.DataFrame, verdict: str, possible: str) -> None:
    assert found.query(possible)[f"falsely {verdict}"].mean() <= MOST


def test_effects_are_found_where_there_are_some(found: pd.DataFrame) -> None:
    right = found[found["world"] == "the paper is right"].set_index("claim")
    assert right.loc["lenet-reinit-below", "shown"] > 0.9
    assert right.loc["lenet-reinit-acc", "shown"] > 0.9
    assert right.loc["lenet-random-below", "supported"] == 1
    none = found[found["world"] == "no effect"]
    assert none["shown"].max() <= 2 / STUDIES
    assert none.set_index("claim").loc["lenet-acc-13.5", "contradicted"] > 0.9


def test_crossings_of_noise_agree_with_nothing(found: pd.DataFrame) -> None:
    none = found[(found["world"] == "no effect") & found["rule"].str.contains("_until|_from")]
    assert none["agrees"].max() == 0


def test_networks_like_the_dense_one_seldom_win() -> None:
    seeds = range(20)
    random = [np.random.default_rng(seed) for seed in seeds]
    won = [winners(referee.study("no effect", 5, r).levels).query("wins")["arm"] for r in random]
    assert sum("winning ticket" in set(arms) for arms in won) <= 2


def test_the_simulator_judges_what_run_folders_would_give(tmp_path: Path) -> None:
    simulated = referee.study("half the effect", 3, np.random.default_rng(0))
    for number, (run, rows) in enumerate(simulated.levels.groupby("run")):
        write_study(tmp_path / f"{number}", rows, dict(simulated.identities[str(run)]))
    read = {(v.claim.id, v.agreement, v.effect, v.why) for v in judged(collect([tmp_path]))}
    assert read == {(v.claim.id, v.agreement, v.effect, v.why) for v in judged(simulated)}


def write_study(folder: Path, rows: pd.DataFrame, identity: dict[str, object]) -> None:
    """Write the folder of one simulated run."""
    folder.mkdir(parents=True)
    first = rows.iloc[0]
    status = {
        "state": "finished", "overrides": [], "done": len(rows), "preset": "lenet",
        "groups": {"model": "lenet_300_100", "dataset": "mnist"}, "identity": identity,
        "arm": first["arm"], "rate": first["rate"],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(status))
    whole = rows.assign(
        early_stop_val_loss=0.1, early_stop_val_accuracy=0.9, early_stop_train_accuracy=1.0,
        final_iteration=referee.BUDGET, final_val_accuracy=0.9, collapsed=0, seconds=1.0,
        cached=False, training=[f"{first['arm']}-{first['seed']}-{n}" for n in rows["level"]],
    )  # fmt: skip
    write_csv(folder / "levels.csv", LEVEL_COLUMNS, whole[[*LEVEL_COLUMNS]].to_numpy().tolist())
    write_csv(folder / "metrics.csv", METRIC_COLUMNS, [])
