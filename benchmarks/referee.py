"""Judge the judge: how often `python -m analysis claims` is wrong where the truth is known.

python -m benchmarks.referee [--studies 200] [--out FILE.csv]    takes half an hour on one core

Simulates studies of LeNet in four worlds: the paper is right; its effects are half as large; there
are none; tickets are worse than the dense network. Early stops, accuracies and their spread between
trials are those that were measured (docs/analysis.md); the levels of a trial are correlated. Prints
for each claim, world and number of trials how often each verdict is given, and how often falsely.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from analysis.arms import ONE_SHOT, RANDOM, REINIT, TICKET
from analysis.case import NEAR
from analysis.claims import judged
from analysis.protocol import protocol
from analysis.rules import RULES, DensityRule
from analysis.runs import Runs
from analysis.verdicts import Verdict, margin_of

TRIALS = (3, 5, 10, 20)
DENSE_STOP, DENSE_ACCURACY, BUDGET = 4500, 0.979, 50_000
STOP_SPREAD = {"dense": 900.0, TICKET: 600.0, REINIT: 900.0, RANDOM: 900.0, ONE_SHOT: 600.0}
"""Standard deviation of early stops between trials, in iterations."""
ACCURACY_SPREAD = 0.0012
"""Standard deviation of accuracies between trials."""
WITHIN = 0.3
"""Correlation between two levels of one trial."""
LEVELS = 24
ONE_SHOT_RATES = (5, 10, 20, 32.5, 45, 50, 60, 70, 80, 82.5, 85, 90, 92.5, 95, 96.5, 97.5, 98.5, 99)
"""Percent that are pruned at the levels of the paper's figure 4c."""

Array = NDArray[np.float64]
Curve = Mapping[float, float]
"""Density in percent -> value; in between, linear in the logarithm of the density."""


class Truth(NamedTuple):
    """Curves of one arm: early stop as a multiple of the dense network's, points above it at early
    stop and at the end, and training accuracy at the end."""

    stop: Curve
    gain: Curve
    final: Curve
    trained: Curve


PAPER: Mapping[str, Truth] = {
    TICKET: Truth(
        {100: 1, 51.3: 0.8, 21.1: 0.62, 7: 0.8, 3.6: 0.98, 2.9: 1.08, 0.5: 2},
        {100: 0, 51.3: 0.2, 21.1: 0.33, 13.5: 0.38, 7: 0.25, 3.6: 0.02, 2.9: -0.15, 0.5: -2.5},
        {100: 0, 51.3: 0.2, 13.5: 0.35, 7: 0.2, 3.6: 0, 0.5: -3},
        {100: 1, 1.9: 0.999, 1.2: 0.99, 0.5: 0.97},
    ),
    REINIT: Truth(
        {100: 1, 51.3: 1.15, 21.1: 1.556, 3.6: 3.5, 0.5: 5},
        {100: 0, 51.3: 0.05, 26.4: 0.02, 21.1: -0.17, 7: -0.9, 3.6: -1.5, 0.5: -4},
        {100: 0, 26.4: -0.1, 3.6: -1.2, 0.5: -4},
        {100: 1, 4.5: 0.998, 3.6: 0.99, 0.5: 0.95},
    ),
    RANDOM: Truth(
        {100: 1, 51.3: 1.2, 21.1: 1.6, 3.6: 3.6, 0.5: 5},
        {100: 0, 51.3: -0.1, 21.1: -0.4, 7: -1.2, 3.6: -2, 0.5: -5},
        {100: 0, 21.1: -0.4, 3.6: -1.6, 0.5: -5},
        {100: 1, 4.5: 0.996, 3.6: 0.98, 0.5: 0.93},
    ),
    ONE_SHOT: Truth(
        {100: 1, 95: 1.06, 80: 1.04, 67.5: 0.95, 45: 0.8, 17.6: 0.98, 15: 1.1, 1: 2},
        {100: 0, 95: 0.05, 50: 0.2, 10: 0.15, 5.17: 0.02, 3.6: -0.2, 1: -2},
        {100: 0, 50: 0.2, 10: 0.1, 1: -2},
        {100: 1, 5: 0.998, 2.5: 0.99, 1: 0.95},
    ),
}


def _half(value: float) -> float:
    return value / 2


def _nothing(_: float) -> float:
    return 0.0


def _worse(value: float) -> float:
    return -abs(value) - 0.05 * (value != 0)


EFFECTS: Mapping[str, Callable[[float], float]] = {
    "the paper is right": lambda value: value, "half the effect": _half, "no effect": _nothing,
    "tickets are worse": _worse,
}  # fmt: skip
"""World -> what becomes of a gain in points, and of the part by which a stop comes earlier."""


def curve(points: Curve, densities: Array) -> Array:
    known = sorted(points.items())
    at, values = np.log([d for d, _ in known]), [value for _, value in known]
    return np.asarray(np.interp(np.log(densities), at, values))


def truth_of(arm: str, world: str, densities: Array) -> dict[str, Array]:
    """Return the true means of an arm at some densities (percent), by column of levels.csv."""
    of, changed = PAPER[arm], np.vectorize(EFFECTS[world], otypes=[float])
    sooner = changed(1 - curve(of.stop, densities))
    return {
        "early_stop_iteration": DENSE_STOP * (1 - sooner),
        "early_stop_test_accuracy": DENSE_ACCURACY + changed(curve(of.gain, densities)) / 100,
        "final_test_accuracy": DENSE_ACCURACY + changed(curve(of.final, densities)) / 100,
        "final_train_accuracy": curve(of.trained, densities),
    }


def densities_of(arm: str) -> Array:
    """Return the densities in percent of an arm's levels: layer by layer, the output at half the
    rate."""
    hidden, output = 265_200, 1_000
    kept = np.array([1 - rate / 100 for rate in (0, *ONE_SHOT_RATES)])
    halved = np.array([1 - rate / 200 for rate in (0, *ONE_SHOT_RATES)])
    if arm != ONE_SHOT:
        kept, halved = 0.8 ** np.arange(LEVELS + 1), 0.9 ** np.arange(LEVELS + 1)
    return np.asarray(100 * (hidden * kept + output * halved) / (hidden + output))


def study(world: str, trials: int, random: np.random.Generator | None) -> Runs:
    """Return the runs of a simulated study; without `random`, the truth itself."""
    rows, identities = [], {}
    identity = protocol("lenet")
    for seed in range(trials):
        dense: dict[str, float] = {}
        for arm in PAPER:
            run = f"{arm} {seed}"
            identities[run] = identity | {"seed": seed}
            densities = densities_of(arm)
            measured = _measured(arm, truth_of(arm, world, densities), dense, random)
            rows.append(_rows(run, arm, seed, densities, measured))
    return Runs(pd.concat(rows, ignore_index=True), {}, identities, [])


def _measured(
    arm: str, true: dict[str, Array], dense: dict[str, float], random: np.random.Generator | None
) -> dict[str, Array]:
    """Return what one trial of an arm measures. `dense`: its dense network, which the first arm
    fills in and the others share."""
    found = {}
    for column, values in true.items():
        noise = np.zeros(len(values))
        if random is not None:
            own, common = random.standard_normal(len(values)), random.standard_normal()
            noise = np.sqrt(WITHIN) * common + np.sqrt(1 - WITHIN) * own
        if column == "early_stop_iteration":
            spread = np.full(len(values), STOP_SPREAD[arm])
            spread[0] = STOP_SPREAD["dense"]
            values = (np.maximum(values + spread * noise, 100) / 100).round() * 100
        elif column != "final_train_accuracy":
            values = values + ACCURACY_SPREAD * noise
        values[0] = dense.setdefault(column, float(values[0]))
        found[column] = values
    return found


def _rows(
    run: str, arm: str, seed: int, densities: Array, measured: dict[str, Array]
) -> pd.DataFrame:
    named = {
        "run": run, "arm": arm, "seed": seed, "experiment": "lenet_300_100 on mnist",
        "network": "lenet_300_100 on mnist", "model": "lenet_300_100", "dataset": "mnist",
        "preset": "lenet", "rate": "one-shot" if arm == ONE_SHOT else "20 %", "censored": False,
        "training.iterations": BUDGET,
    }  # fmt: skip
    left = np.round(densities / 100 * 266_200)
    levels = {"level": range(len(densities)), "density": densities / 100, "weights_remaining": left}
    return pd.DataFrame({**levels, **measured}).assign(**named)


def false(found: Verdict, true: Verdict) -> list[str]:
    """Return which parts of a verdict are false."""
    claim, wrong = found.claim, []
    if found.effect == "shown" and true.effect != "shown":
        wrong.append("shown")
    if claim.bound != "=":
        if {found.agreement, true.agreement} == {"supported", "contradicted"}:
            wrong.append(found.agreement)
        return wrong
    away = abs(true.measured - claim.value)
    at_a_level = isinstance(RULES.get(claim.name), DensityRule)
    printed = NEAR * claim.value if at_a_level else 0.5 * 10.0**-claim.digits
    if found.agreement == "inconsistent" and away <= printed:
        wrong.append("inconsistent")
    if found.agreement == "agrees" and away > margin_of(claim) + printed:
        wrong.append("agrees")
    return wrong


def results(studies: int, trials: tuple[int, ...] = TRIALS) -> Iterator[dict[str, object]]:
    """Yield for each claim, world and number of trials how often it is judged how, and how often
    falsely."""
    for world in EFFECTS:
        truth = {verdict.claim.id: verdict for verdict in judged(study(world, 3, None))}
        for n in trials:
            verdicts, wrong = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
            for number in track(range(studies), f"{world}, n = {n}", transient=True):
                random = np.random.default_rng([number, n])
                for found in judged(study(world, n, random)):
                    name = found.claim.id
                    verdicts[name, found.agreement] += 1
                    verdicts[name, found.effect] += 1
                    wrong.update((name, part) for part in false(found, truth[name]))
            for of in truth.values():
                if of.agreement != "not enough data" and not RULES[of.claim.name].exact:
                    yield _row(of, world, n, studies, verdicts, wrong)


def _row(
    of: Verdict, world: str, n: int, studies: int,
    verdicts: Counter[tuple[str, str]], wrong: Counter[tuple[str, str]],
) -> dict[str, object]:  # fmt: skip
    name = of.claim.id
    words = ("agrees", "inconsistent", "supported", "contradicted", "undecided", "shown")
    shares = {word: verdicts[name, word] / studies for word in words}
    falsely = {f"falsely {word}": wrong[name, word] / studies for word in words if word != words[4]}
    about = {"claim": name, "rule": of.claim.name, "bound": of.claim.bound, "world": world, "n": n}
    truth = math.nan if math.isnan(of.measured) else of.measured
    return {**about, "paper": of.claim.value, "truth": truth, **shares, **falsely}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = pd.DataFrame(results(arguments.studies))
    if arguments.out:
        found.to_csv(arguments.out, index=False)
    shown = found.set_index(["claim", "world", "n"]).drop(columns=["rule", "bound"])
    table = Table(*shown.index.names, *shown.columns)
    for index, row in shown.iterrows():
        table.add_row(*map(str, index), *(f"{value:.3g}" for value in row))
    Console(width=240).print(table)


if __name__ == "__main__":
    main()
