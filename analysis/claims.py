"""The paper's claims against what runs measured: estimates, intervals over seeds, verdicts.

The interval is the 95 % percentile bootstrap over seeds. Only seeds count that have everything a
claim needs.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.measured import (
    COMPARED,
    EXACT,
    FINAL,
    NEAR,
    RATIOS,
    RULES,
    SAME,
    STOP,
    Array,
    Case,
    Claim,
    Sample,
    Untestable,
    paper_claims,
    reported_accuracy,
    sample,
)
from analysis.points import FEWEST

RESAMPLES = 5000

EPSILON = 0.001
"""How far below the dense network's accuracy a winning ticket may be, by default: 0.1 points."""


NO_EFFECT = {"speedup": 1.0, "slower_than_ticket": 1.0} | dict.fromkeys(
    ("earlier", "gain", "below_ticket", "mean_below_ticket", "above_random_mask", "dense_gain"), 0.0
)  # fmt: skip
"""What a rule gives where there is nothing to see; those that end with until: all of the ladder,
those that end with from: its first level, by noise."""
HIGHEST = ("best_gain", "best_final_gain")
"""Rules that take the best of all levels: by noise alone, more than nothing."""


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


def judged(levels: pd.DataFrame) -> Iterator[Verdict]:
    """Every claim about the networks that are there, at the paper's rates, for each experiment that
    prunes."""
    prunes = levels.groupby("experiment")["level"].transform("max") > 0
    named = _of_the_paper(levels[prunes])
    by_rate = named.groupby(["experiment", "paper", "rate"], sort=False)
    samples = {(str(e), n, str(r)): sample(rows) for (e, n, r), rows in by_rate}
    others: dict[str, list[Sample]] = {}
    for (_, network, _), of in samples.items():
        others.setdefault(network, []).append(of)
    for experiment, network in dict.fromkeys(key[:2] for key in samples):
        rates = {r: of for (e, n, r), of in samples.items() if (e, n) == (experiment, network)}
        for claim in paper_claims():
            if _is_about(claim, network):
                having = [r for r, of in rates.items() if claim.arm in ("", *of.tables)]
                for rate in having or list(rates)[:1]:
                    of = rates[rate]
                    title = f"{experiment}, {rate} a level{_departures(network, of.settings)}"
                    yield judge(title, of, claim, others)


def _is_about(claim: Claim, network: str) -> bool:
    """`*` at the end of a claim's network stands for its variants."""
    prefix = claim.network.removesuffix("*")
    return network == prefix or (claim.network.endswith("*") and network.startswith(prefix))


def judge(
    experiment: str, of: Sample, claim: Claim, others: Mapping[str, list[Sample]] | None = None
) -> Verdict:
    """What these measurements say of a claim."""
    nan = math.nan
    try:
        case = _case(of, claim, others or {})
        with np.errstate(all="ignore"):
            value = RULES[claim.name](case)
            each = RULES[claim.name](case, each=True) if claim.name in RATIOS else nan
            low, high = _interval(case, value)
    except Untestable as reason:
        return Verdict(experiment, claim, nan, nan, nan, nan, 0, "not enough data", str(reason))
    found = Verdict(experiment, claim, value, low, high, each, len(case.of.seeds), "", "")
    verdict, why = _decided(found, case)
    return found._replace(verdict=verdict, why=why)


def _case(of: Sample, claim: Claim, others: Mapping[str, list[Sample]]) -> Case:
    """The seeds that have everything that a claim needs. Raises Untestable."""
    if claim.name not in RULES:
        raise Untestable(claim.argument.replace("_", " "))
    if claim.name == "dense_gain":
        return _compared(of, claim, others.get(claim.argument, []))
    if not claim.arm:
        return Case(of, claim, 0)
    if claim.arm not in of.densities:
        raise Untestable(f"no runs of the arm {claim.arm}")
    place, depth = _place(claim, 100 * of.densities[claim.arm])
    arms = {claim.arm, COMPARED.get(claim.name, claim.arm)}
    return Case(of.down_to(sorted(arms), depth), claim, place)


def _compared(of: Sample, claim: Claim, others: list[Sample]) -> Case:
    if len(others) != 1:
        count = "several experiments" if others else "no runs"
        raise Untestable(f"{count} of {claim.argument} to compare with")
    shared = [seed for seed in of.seeds if seed in others[0].seeds]
    if not shared:
        raise Untestable(f"no seed that {claim.argument} has as well")
    own, other = (s.rows([s.seeds.index(seed) for seed in shared]) for s in (of, others[0]))
    return Case(own, claim, 0, other)


def _place(claim: Claim, densities: Array) -> tuple[int, int]:
    """The level that a claim is about, and the deepest that it needs."""
    if claim.level is not None:
        if claim.level >= len(densities):
            last = len(densities) - 1
            raise Untestable(f"the runs have {last} levels: set pruning.levels higher")
        return claim.level, claim.level
    if claim.density is not None:
        level = _nearest(claim.density, densities)
        return level, level
    if claim.unit == "% density" and claim.bound == "=":
        _nearest(claim.value, densities)
    depth = claim.depth if claim.depth is not None else claim.value * (1 - NEAR)
    deep = np.flatnonzero(densities <= depth + SAME)
    if not len(deep):
        lowest = f"{np.nanmin(densities):.3g} %"
        raise Untestable(f"the runs end at {lowest}, {depth:.3g} % are needed: more pruning.levels")
    return 0, int(deep[0])


def _nearest(wanted: float, densities: Array) -> int:
    distances = np.abs(densities / wanted - 1)
    if np.nanmin(distances) > NEAR:
        raise Untestable(f"no level near {wanted:g} %")
    return int(np.nanargmin(distances))


def _interval(case: Case, value: float) -> tuple[float, float]:
    """95 % percentile bootstrap over seeds; the same for the same data."""
    if case.claim.name in EXACT:
        return value, value
    count = len(case.of.seeds)
    if count < FEWEST:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    unique, times = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    values = np.repeat([_redrawn(case, rows) for rows in unique], times)
    low, high = np.nanquantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _redrawn(case: Case, rows: NDArray[np.int64]) -> float:
    other = case.other and case.other.rows(rows)
    return RULES[case.claim.name](case._replace(of=case.of.rows(rows), other=other))


def _decided(found: Verdict, case: Case) -> tuple[str, str]:
    claim = found.claim
    printed = 0.5 * 10.0**-claim.digits + SAME
    at_a_level = claim.unit == "% density" and claim.bound == "="  # of a grid that is another
    rounding = max(printed, NEAR * claim.value) if at_a_level else printed
    exact = claim.name in EXACT
    if not exact and found.n < FEWEST:
        return "not enough data", f"n = {found.n} seeds; {FEWEST} are the fewest"
    if claim.bound == ">":
        excluded = "not reproduced" if found.high <= claim.value else "not enough data"
        return ("reproduced", "") if found.low > claim.value else (excluded, "by its interval")
    reached = found.high + rounding >= claim.value
    kept = found.low - rounding <= claim.value
    if {"=": reached and kept, ">=": reached, "<=": kept}[claim.bound]:
        if not exact and _has_no_effect(found, case):
            return "not enough data", "with this noise, no effect would do as well"
        return "reproduced", "" if exact else "the paper's value is not excluded"
    side = "below" if found.high < claim.value else "above"
    return "not reproduced", f"measured {side} it{'' if exact else ', beyond the interval'}"


def _has_no_effect(found: Verdict, case: Case) -> bool:
    name = found.claim.name
    if name in HIGHEST:
        return found.measured <= _by_chance(case)
    if name.endswith("_from"):
        return found.high >= float(case.densities[1]) - SAME
    if name.endswith("_until") and found.claim.bound != ">=":
        of_weights = name.startswith("weights")
        dense = case.own("weights_remaining")[:, 0].mean() if of_weights else case.densities[0]
        return found.high >= float(dense) - SAME
    return name in NO_EFFECT and found.low <= NO_EFFECT[name] <= found.high


def _by_chance(case: Case) -> float:
    """What a highest gain comes to, at most in 97.5 of 100 draws of seeds, if no level gains
    anything on average."""
    table = case.of.tables[case.claim.arm]
    even = {name: own - (own - own[:, :1]).mean(axis=0) for name, own in table.items()}
    nothing = replace(case.of, tables={**case.of.tables, case.claim.arm: even})
    return _interval(case._replace(of=nothing), 0.0)[1]


SETTINGS = {
    "iterations": "training.iterations", "batch size": "training.batch_size",
    "learning rate": "optimizer.options.lr", "optimizer": "optimizer.path",
    "momentum": "optimizer.options.momentum", "weight decay": "optimizer.options.weight_decay",
    "schedule": "optimizer.schedule.kind", "warmup": "optimizer.schedule.warmup",
    "flip": "dataset.flip", "crop": "dataset.crop", "dropout": "model.options.dropout",
    "init scale": "model.options.init_scale",
}  # fmt: skip
ADAM = {
    "batch size": 60, "optimizer": "torch.optim.Adam", "weight decay": 0, "schedule": "constant",
    "warmup": 0, "flip": False, "crop": 0, "dropout": 0, "init scale": 1,
}  # fmt: skip
SGD = {
    "optimizer": "torch.optim.SGD", "momentum": 0.9, "weight decay": 1e-4, "schedule": "multistep",
    "warmup": 0, "flip": True, "crop": 4,
}  # fmt: skip
RESNET = {**SGD, "iterations": 30_000, "batch size": 128, "learning rate": 0.1}
VGG = {**SGD, "iterations": 112_480, "batch size": 64, "learning rate": 0.1}
PROTOCOL: dict[str, dict[str, Any]] = {
    "lenet": {**ADAM, "iterations": 50_000, "learning rate": 0.0012},
    "conv2": {**ADAM, "iterations": 20_000, "learning rate": 0.0002},
    "conv4": {**ADAM, "iterations": 25_000, "learning rate": 0.0003},
    "conv6": {**ADAM, "iterations": 30_000, "learning rate": 0.0003},
    "conv2_dropout": {**ADAM, "iterations": 60_000, "learning rate": 0.0003, "dropout": 0.5},
    "conv4_dropout": {**ADAM, "iterations": 75_000, "learning rate": 0.0002, "dropout": 0.5},
    "conv6_dropout": {**ADAM, "iterations": 90_000, "learning rate": 0.0002, "dropout": 0.5},
    "resnet18": RESNET,
    "resnet18_low": {**RESNET, "learning rate": 0.01},
    "resnet18_warmup": {**RESNET, "learning rate": 0.03, "warmup": 20_000},
    "vgg19": VGG,
    "vgg19_low": {**VGG, "learning rate": 0.01},
    "vgg19_warmup": {**VGG, "warmup": 10_000},
}
"""Network -> how the paper trains it (figure 2, appendix H): names of SETTINGS."""


def _departures(network: str, settings: Mapping[str, Any]) -> str:
    """What of the paper's protocol a run does not follow."""
    protocol = PROTOCOL.get(network, {})
    told = [
        f"{name} {_short(settings[setting])} for {_short(protocol[name])}"
        for name, setting in SETTINGS.items()
        if name in protocol and setting in settings
        if _short(settings[setting]) != _short(protocol[name])
    ]
    return f" (not the paper's: {', '.join(told)})" if told else ""


def _short(value: Any) -> str:  # noqa: ANN401 - any setting
    """As it is written in a title; numbers that are equal, alike."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if number else str(value).removeprefix("torch.optim.")


def _of_the_paper(levels: pd.DataFrame) -> pd.DataFrame:
    """The rows at the paper's rates, with the `paper`'s name for their network."""
    runs = levels.drop_duplicates("run")
    names = {row["run"]: _paper_network(row) for row in runs.to_dict("records")}
    named = levels.assign(paper=levels["run"].map(names))
    return named[named["paper"] != ""]


def _paper_network(row: Mapping[Any, Any]) -> str:
    """The network group whose settings a run has, or "" where the paper has none of them."""
    if isinstance(row["pruning.rates"], str) and row["pruning.mode"] == "iterative":
        return ""
    model, data = str(row["model"]), str(row["network"]).partition(" on ")[2]
    if model == "lenet_300_100":
        usual = (row["pruning.linear_rate"], row["pruning.output_rate"]) == (20, 10)
        return _lenet(row) if usual and data == "mnist" else ""
    if data not in ("cifar10", "cifar10_jpeg"):
        return ""
    if model in ("conv2", "conv4", "conv6"):
        rates = (15 if model == "conv6" else 10, 20, 10)
        kinds = ("conv", "linear", "output")
        usual = tuple(row[f"pruning.{kind}_rate"] for kind in kinds) == rates
        name = f"{model}_dropout" if row.get("model.options.dropout", 0) else model
        return name if usual else ""
    deep = model in ("vgg19", "resnet18") and row["pruning.conv_rate"] == 20
    return _deep(row, model) if deep and row["pruning.output_rate"] == 0 else ""


def _lenet(row: Mapping[Any, Any]) -> str:
    if row.get("model.options.widths", "[300, 100]") != "[300, 100]":
        return "lenet_sizes"
    if str(row.get("optimizer.path", "")).endswith(".SGD"):
        plain = not row.get("optimizer.options.momentum", 0)
        return "lenet_sgd" if plain and row["optimizer.options.lr"] in (0.4, 0.8) else ""
    return "lenet"


def _deep(row: Mapping[Any, Any], model: str) -> str:
    lr, warm = row["optimizer.options.lr"], bool(row.get("optimizer.schedule.warmup", 0))
    if row["pruning.scope"] == "layerwise":
        return f"{model}_layerwise" if warm else ""
    for name in (model, f"{model}_low", f"{model}_warmup"):
        if (lr, warm) == (PROTOCOL[name]["learning rate"], name.endswith("_warmup")):
            return name
    return ""


def winners(levels: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """Which levels are winning tickets: on average over seeds, paired, test accuracy is not below
    the dense network's by more than `epsilon`, and early stop comes no later; of VGG and ResNet,
    which the paper gives no early stop, by accuracy at the end alone.

    A row for each experiment, arm, rate and level from 1: `accuracy` (difference), `stop` (ratio of
    means), `n`, `wins`.
    """
    rows = []
    lines = levels.groupby(["experiment", "arm", "rate"], sort=False)
    for (experiment, arm, rate), of_arm in lines:
        of = sample(of_arm)
        reported = reported_accuracy(of.settings)
        accuracy, stop = (of.of(str(arm), quantity) for quantity in (reported, STOP))
        for level in range(1, accuracy.shape[1]):
            gained = accuracy[:, level] - accuracy[:, 0]
            there = ~np.isnan(gained)
            if there.any():
                better = float(gained[there].mean())
                sooner = float(stop[there, level].mean() / max(stop[there, 0].mean(), SAME))
                in_time = reported == FINAL or sooner <= 1 + SAME
                at = (experiment, arm, rate, level, of.densities[str(arm)][level])
                wins = better >= -epsilon - SAME and in_time
                rows.append((*at, better, sooner, int(there.sum()), wins))
    names = ("experiment", "arm", "rate", "level", "density", "accuracy", "stop", "n", "wins")
    return pd.DataFrame(rows, columns=[*names])


def smallest_winners(found: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Of `winners`, for each line: experiment, arm, rate, how many levels win of how many, the
    smallest winning density in percent, n."""
    for line, rows in found.groupby(["experiment", "arm", "rate"], sort=False):
        won = rows[rows["wins"]]
        smallest = f"{100 * won['density'].min():.3g}" if len(won) else "none"
        yield (*line, len(won), len(rows), smallest, rows["n"].min())
