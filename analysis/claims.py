"""The paper's numeric claims (`paper.csv`) against what runs measured, with intervals over seeds.

Seeds are paired: draws of a seed are averaged, differences and ratios are taken within it, and the
interval is the 95 % percentile bootstrap over seeds. Early stop, accuracy there: main text; VGG-19
and ResNet-18 at the end of training.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.collect import ARMS

Array = NDArray[np.float64]

PAPER = Path(__file__).with_name("paper.csv")
STOP, ACCURACY = "early_stop_iteration", "early_stop_test_accuracy"
FINAL, TRAINED = "final_test_accuracy", "final_train_accuracy"
TICKET, RANDOM_MASK = ARMS[0], ARMS[2]
MEASURED = (STOP, ACCURACY, FINAL, TRAINED, "weights_remaining")

RESAMPLES = 5000
FEWEST = 3
"""Seeds below which no interval is worth showing."""
NEAR = 0.05
"""How far, relatively, a level's density may be from the one that a claim names."""
FULLY = 0.995
"""Training accuracy that counts as 100 %: what is printed so."""
SAME = 1e-9
"""What sums of floats may be apart that stand for one number."""
EPSILON = 0.001
"""How far below the dense network's accuracy a winning ticket may be, by default: 0.1 points."""


class Claim(NamedTuple):
    """A row of paper.csv. `rule`: a function of RULES, or `name:argument`; `density`: percent, or
    `level`: where it holds, if at one place; `bound`: = about, >= at least, <= at most `value`."""

    id: str
    network: str
    rule: str
    arm: str
    level: int | None
    density: float | None
    bound: str
    value: float
    unit: str
    says: str
    source: str
    digits: int
    """Decimals of the value as the paper prints it."""


class Verdict(NamedTuple):
    """What became of a claim: the estimate, its interval, the mean of ratios where the estimate is
    a ratio of means, over `n` seeds; `verdict`, and `why`."""

    experiment: str
    claim: Claim
    measured: float
    low: float
    high: float
    mean_of_ratios: float
    n: int
    verdict: str
    why: str


class Untestable(Exception):
    """Why the runs cannot test a claim."""


def paper_claims() -> list[Claim]:
    with PAPER.open(encoding="utf-8", newline="") as file:
        return [_claim(row) for row in csv.DictReader(file)]


def _claim(row: dict[str, str]) -> Claim:
    own = {name: float(row[name]) if row[name] else None for name in ("level", "density", "value")}
    digits = len(row["value"].partition(".")[2])
    level = None if own["level"] is None else int(own["level"])
    return Claim(**{**row, **own, "level": level}, digits=digits)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sample:
    """What one network's runs measured: arm -> quantity -> (seeds, levels), nan where missing; of
    all `seeds`, or of some drawn with replacement. `densities`: arm -> (levels,)."""

    tables: Mapping[str, Mapping[str, Array]]
    densities: Mapping[str, Array]
    settings: Mapping[str, Any]
    rows: NDArray[np.int64]
    others: Mapping[str, "Sample"] = field(default_factory=dict)

    def of(self, arm: str, quantity: str) -> Array:
        if arm not in self.tables:
            raise Untestable(f"no runs of the arm {arm}")
        return self.tables[arm][quantity][self.rows]

    def place(self, claim: Claim) -> int:
        """The level that a claim names. Raises Untestable where the runs have none."""
        if claim.arm not in self.densities:
            raise Untestable(f"no runs of the arm {claim.arm}")
        densities = self.densities[claim.arm]
        if claim.level is not None:
            if claim.level >= len(densities):
                raise Untestable(f"the runs have {len(densities) - 1} levels")
            return claim.level
        assert claim.density is not None
        distances = np.abs(100 * densities / claim.density - 1)
        if distances.min() > NEAR:
            raise Untestable(f"no level near {claim.density:g} %")
        return int(distances.argmin())


def sample(levels: pd.DataFrame) -> Sample:
    """That of the rows of one experiment at one rate."""
    seeds = sorted(levels["seed"].unique())
    last = int(levels["level"].max())
    tables, densities = {}, {}
    for arm, rows in levels.groupby("arm"):
        own = {
            quantity: rows.pivot_table(quantity, "seed", "level", sort=True)
            .reindex(index=seeds, columns=range(last + 1))
            .to_numpy(float)
            for quantity in MEASURED
        }
        deepest = int(rows["level"].max()) + 1
        tables[str(arm)] = {quantity: table[:, :deepest] for quantity, table in own.items()}
        by_level = rows.groupby("level")["density"].mean()
        densities[str(arm)] = by_level.reindex(range(deepest)).to_numpy(float)
    settings = levels.iloc[0].to_dict()
    return Sample(tables, densities, settings, np.arange(len(seeds)))


def _pairs(one: Array, other: Array) -> tuple[Array, Array]:
    """Those of the seeds that have both."""
    there = ~(np.isnan(one) | np.isnan(other))
    if not there.any():
        raise Untestable("no seed has both")
    return one[there], other[there]


def _ratio(one: Array, other: Array, *, each: bool) -> float:
    """Of means; or, `each`, the mean of the ratios."""
    one, other = _pairs(one, other)
    return float((one / other).mean() if each else one.mean() / other.mean())


def earlier(of: Sample, claim: Claim, *, each: bool = False) -> float:
    stop = of.of(claim.arm, STOP)
    return 100 * (1 - _ratio(stop[:, of.place(claim)], stop[:, 0], each=each))


def speedup(of: Sample, claim: Claim, *, each: bool = False) -> float:
    stop = of.of(claim.arm, STOP)
    return _ratio(stop[:, 0], stop[:, of.place(claim)], each=each)


def slower_than_ticket(of: Sample, claim: Claim, *, each: bool = False) -> float:
    level = of.place(claim)
    return _ratio(of.of(claim.arm, STOP)[:, level], of.of(TICKET, STOP)[:, level], each=each)


def gain(of: Sample, claim: Claim) -> float:
    return float(_gains(of.of(claim.arm, ACCURACY))[of.place(claim)])


def below_ticket(of: Sample, claim: Claim) -> float:
    level = of.place(claim)
    own, ticket = _pairs(of.of(claim.arm, ACCURACY)[:, level], of.of(TICKET, ACCURACY)[:, level])
    return 100 * float((ticket - own).mean())


def above_random_mask(of: Sample, claim: Claim) -> float:
    own, random = of.of(claim.arm, ACCURACY), of.of(RANDOM_MASK, ACCURACY)
    shared = min(own.shape[1], random.shape[1])
    sparse = of.densities[claim.arm][:shared] < 0.5
    one, other = _pairs(own[:, :shared][:, sparse], random[:, :shared][:, sparse])
    return 100 * float((one - other).mean())


def best_gain(of: Sample, claim: Claim) -> float:
    return float(np.nanmax(_gains(of.of(claim.arm, ACCURACY))[1:]))


def best_final_gain(of: Sample, claim: Claim) -> float:
    return float(np.nanmax(_gains(of.of(claim.arm, FINAL))[1:]))


def final_accuracy(of: Sample, claim: Claim) -> float:
    return 100 * float(np.nanmean(of.of(claim.arm, FINAL)[:, of.place(claim)]))


def dense_gain(of: Sample, claim: Claim) -> float:
    other = of.others.get(claim.rule.partition(":")[2])
    if other is None:
        raise Untestable(f"no runs of {claim.rule.partition(':')[2]} to compare with")
    dense = [next(iter(s.tables.values()))[_reported(of)][:, 0] for s in (of, other)]
    if len(dense[0]) != len(dense[1]):
        raise Untestable("other seeds there")
    one, base = _pairs(dense[0][of.rows], dense[1][of.rows])
    return 100 * float((one - base).mean())


def earlier_until(of: Sample, claim: Claim) -> float:
    return _last(of, claim, _stops(of, claim) <= 1 + SAME)


def earlier_from(of: Sample, claim: Claim) -> float:
    return _first(of, claim, _stops(of, claim) < 1 - SAME)


def better_until(of: Sample, claim: Claim) -> float:
    return _last(of, claim, _gains(of.of(claim.arm, ACCURACY)) >= -SAME)


def better_from(of: Sample, claim: Claim) -> float:
    return _first(of, claim, _gains(of.of(claim.arm, ACCURACY)) > SAME)


def worse_from(of: Sample, claim: Claim) -> float:
    better = _gains(of.of(claim.arm, ACCURACY)) >= -SAME
    after = np.flatnonzero(better)[-1] + 1
    densities = of.densities[claim.arm]
    return 100 * float(densities[after]) if after < len(densities) else 0.0


def weights_better_until(of: Sample, claim: Claim) -> float:
    better = _gains(of.of(claim.arm, ACCURACY)) >= -SAME
    left = np.nanmean(of.of(claim.arm, "weights_remaining"), axis=0)
    return float(left[np.flatnonzero(better)[-1]])


def final_better_until(of: Sample, claim: Claim) -> float:
    return _last(of, claim, _gains(of.of(claim.arm, FINAL)) >= -SAME)


def final_within_1_until(of: Sample, claim: Claim) -> float:
    return _last(of, claim, _gains(of.of(claim.arm, FINAL)) >= -1 - SAME)


def fully_trained_until(of: Sample, claim: Claim) -> float:
    fully = np.nanmean(of.of(claim.arm, TRAINED), axis=0) >= FULLY
    return _last(of, claim, np.logical_and.accumulate(fully))


def weights(of: Sample, _: Claim) -> float:
    return float(next(iter(of.tables.values()))["weights_remaining"][0, 0])


def density(of: Sample, claim: Claim) -> float:
    return 100 * float(of.densities[claim.arm][of.place(claim)])


def setting(of: Sample, claim: Claim) -> float:
    return float(of.settings[claim.rule.partition(":")[2]])


def untestable(_: Sample, claim: Claim) -> float:
    raise Untestable(claim.says.partition(": ")[2])


def _gains(accuracy: Array) -> Array:
    """Points above the dense network, level by level, over the seeds that have both."""
    return 100 * np.asarray(np.nanmean(accuracy - accuracy[:, :1], axis=0))


def _stops(of: Sample, claim: Claim) -> Array:
    """Early stop as a multiple of the dense network's, level by level."""
    stop = of.of(claim.arm, STOP)
    return np.array(
        [_ratio(stop[:, level], stop[:, 0], each=False) for level in range(stop.shape[1])]
    )


def _last(of: Sample, claim: Claim, holds: NDArray[np.bool_]) -> float:
    """The density of the last level at which it holds, in percent."""
    levels = np.flatnonzero(holds)
    return 100 * float(of.densities[claim.arm][levels[-1]]) if len(levels) else 100.0


def _first(of: Sample, claim: Claim, holds: NDArray[np.bool_]) -> float:
    """That of the first level after 0."""
    levels = np.flatnonzero(holds[1:])
    return 100 * float(of.densities[claim.arm][1 + levels[0]]) if len(levels) else 0.0


def _reported(of: Sample) -> str:
    return FINAL if str(of.settings["model"]).startswith(("vgg", "resnet")) else ACCURACY


RULES: dict[str, Callable[..., float]] = {
    rule.__name__: rule
    for rule in (
        earlier, speedup, slower_than_ticket, gain, below_ticket, above_random_mask, best_gain,
        best_final_gain, final_accuracy, dense_gain, earlier_until, earlier_from, better_until,
        better_from, worse_from, weights_better_until, final_better_until, final_within_1_until,
        fully_trained_until, weights, density, setting, untestable,
    )
}  # fmt: skip
EXACT = {"weights", "density", "setting"}
"""Rules without chance."""
NO_EFFECT = {"earlier": 0.0, "speedup": 1.0, "slower_than_ticket": 1.0, "gain": 0.0,
             "below_ticket": 0.0, "above_random_mask": 0.0, "dense_gain": 0.0}  # fmt: skip
"""What a rule gives where there is nothing to see."""
RATIOS = {"earlier", "speedup", "slower_than_ticket"}


def judged(levels: pd.DataFrame) -> Iterator[Verdict]:
    """Every claim about the networks that are there, at the paper's rates."""
    samples = {
        (str(name), network): sample(rows)
        for (name, network), rows in _of_the_paper(levels).groupby(["experiment", "paper"])
    }
    others = {network: of for (_, network), of in samples.items()}
    for (experiment, network), of in samples.items():
        for claim in paper_claims():
            if _is_about(claim, network):
                yield judge(experiment, replace(of, others=others), claim)


def _is_about(claim: Claim, network: str) -> bool:
    """`*` at the end of a claim's network stands for its variants."""
    prefix = claim.network.removesuffix("*")
    return network == prefix or (claim.network.endswith("*") and network.startswith(prefix))


def judge(experiment: str, of: Sample, claim: Claim) -> Verdict:
    """What these measurements say of a claim."""
    name = claim.rule.partition(":")[0]
    nothing = (math.nan,) * 4
    try:
        if name.endswith(("_until", "_from")):
            _check_depth(of, claim)
        with np.errstate(all="ignore"):
            value = RULES[name](of, claim)
            each = RULES[name](of, claim, each=True) if name in RATIOS else math.nan
            n = _seeds(of, claim)
            if name in EXACT:
                low, high = value, value
            else:
                low, high = interval(of, claim) if n >= FEWEST else (math.nan, math.nan)
    except Untestable as reason:
        return Verdict(experiment, claim, *nothing, 0, "not enough data", str(reason))
    found = Verdict(experiment, claim, value, low, high, each, n, "", "")
    verdict, why = _decided(found, exact=name in EXACT, null=NO_EFFECT.get(name))
    return found._replace(verdict=verdict, why=why)


def _check_depth(of: Sample, claim: Claim) -> None:
    if claim.arm not in of.densities:
        raise Untestable(f"no runs of the arm {claim.arm}")
    deepest = 100 * float(np.nanmin(of.densities[claim.arm]))
    if claim.unit == "% density" and deepest > claim.value * (1 - NEAR):
        raise Untestable(f"the runs end at {deepest:.3g} %, not beyond {claim.value:g} %")


def _seeds(of: Sample, claim: Claim) -> int:
    """How many have the level that a claim names, or all of the arm's; of no arm, all there are."""
    if claim.arm not in of.tables:
        return len(of.rows)
    there = (~np.isnan(of.tables[claim.arm][ACCURACY])).sum(axis=0)
    named = claim.level is not None or claim.density is not None
    return int(there[of.place(claim)] if named else there.min())


def interval(of: Sample, claim: Claim) -> tuple[float, float]:
    """95 % percentile bootstrap over seeds; the same for the same data."""
    random = np.random.default_rng(0)
    rule = RULES[claim.rule.partition(":")[0]]
    drawn = random.choice(of.rows, (RESAMPLES if len(of.rows) > 1 else 1, len(of.rows)))
    unique, times = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    values = np.repeat([_value(rule, replace(of, rows=rows), claim) for rows in unique], times)
    low, high = np.nanquantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _value(rule: Callable[..., float], of: Sample, claim: Claim) -> float:
    try:
        return rule(of, claim)
    except Untestable:
        return math.nan


def _decided(found: Verdict, *, exact: bool, null: float | None) -> tuple[str, str]:
    claim, rounding = found.claim, 0.5 * 10.0**-found.claim.digits + SAME
    if not exact and found.n < FEWEST:
        return "not enough data", f"n = {found.n} seeds; {FEWEST} are the fewest"
    reached = found.high + rounding >= claim.value
    kept = found.low - rounding <= claim.value
    holds = {"=": reached and kept, ">=": reached, "<=": kept}[claim.bound]
    if holds and null is not None and found.low <= null <= found.high and null != claim.value:
        return "not enough data", "the interval has both the paper's value and no effect"
    if holds:
        return "reproduced", "" if exact else "the paper's value is not excluded"
    side = "below" if found.high < claim.value else "above"
    return "not reproduced", f"measured {side} it, beyond the interval"


def _of_the_paper(levels: pd.DataFrame) -> pd.DataFrame:
    """The rows at the paper's rates, with the `paper`'s name for their network."""
    named = levels.assign(paper=[_paper_network(row) for row in levels.to_dict("records")])
    return named[named["paper"] != ""]


def _paper_network(row: Mapping[Any, Any]) -> str:
    """The network group whose settings a row has, or "" where the paper has none of them."""
    model, lr = str(row["model"]), row["optimizer.options.lr"]
    rates = {"lenet_300_100": (20, 20), "conv6": (15, 20)}.get(model, (10, 20))
    if model.startswith(("vgg", "resnet")):
        rates = (20, 20)
    fully = model == "lenet_300_100"
    usual = row["pruning.linear_rate"] == rates[1] and (
        fully or row["pruning.conv_rate"] == rates[0]
    )
    data = str(row["network"]).partition(" on ")[2]
    if not usual or data not in (["mnist"] if fully else ["cifar10", "cifar10_jpeg"]):
        return ""
    if fully:
        other = row.get("model.options.widths", "[300, 100]") != "[300, 100]"
        sgd = str(row.get("optimizer.path", "")).endswith(".SGD")
        return "lenet_sgd" if sgd else "lenet_sizes" if other else "lenet"
    if model in ("conv2", "conv4", "conv6"):
        return f"{model}_dropout" if row.get("model.options.dropout", 0) else model
    if row["pruning.scope"] == "layerwise":
        return f"{model}_layerwise"
    warm = row.get("optimizer.schedule.warmup", 0)
    return f"{model}_warmup" if warm else f"{model}_low" if lr <= 0.01 else model


def winners(levels: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """Which levels are winning tickets: on average over seeds, paired, test accuracy at early stop
    is not below the dense network's by more than `epsilon`, and early stop comes no later.

    A row for each experiment, arm, rate and level from 1: `accuracy` (difference), `stop` (ratio of
    means), `n`, `wins`.
    """
    rows = []
    for (experiment, arm, rate), of_arm in levels.groupby(
        ["experiment", "arm", "rate"], sort=False
    ):
        of = sample(of_arm)
        accuracy, stop = (of.of(str(arm), quantity) for quantity in (ACCURACY, STOP))
        for level in range(1, accuracy.shape[1]):
            gained = accuracy[:, level] - accuracy[:, 0]
            there = ~np.isnan(gained)
            if there.any():
                better = float(gained[there].mean())
                sooner = float(stop[there, level].mean() / max(stop[there, 0].mean(), 1e-9))
                wins = better >= -epsilon - SAME and sooner <= 1 + SAME
                at = (experiment, arm, rate, level, of.densities[str(arm)][level])
                rows.append((*at, better, sooner, int(there.sum()), wins))
    names = ("experiment", "arm", "rate", "level", "density", "accuracy", "stop", "n", "wins")
    return pd.DataFrame(rows, columns=[*names])
