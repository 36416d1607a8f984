"""Test one claim: estimate, interval over seeds, verdict.

The interval is the 95 % percentile bootstrap over seeds. Seeds without everything that a claim
needs are left out.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.measured import (
    BUDGET,
    COMPARED,
    EXACT,
    NEAR,
    RATIOS,
    RULES,
    SAME,
    Array,
    Case,
    Sample,
    Untestable,
    reads_censored,
)
from analysis.paper import Claim
from analysis.points import FEWEST

RESAMPLES = 5000

NO_EFFECT = {"speedup": 1.0, "slower_than_ticket": 1.0} | dict.fromkeys(
    ("earlier", "gain", "below_ticket", "mean_below_ticket", "above_random_mask", "dense_gain"), 0.0
)  # fmt: skip
"""Rule -> its value where pruning has no effect. Without effect, rules that end in `until` reach
any density, and rules that end in `from` the first level, by noise alone."""
HIGHEST = ("best_gain", "best_final_gain")
"""Rules that take the best of all levels, which is above 0 by noise alone."""


class Verdict(NamedTuple):
    """The estimate of a claim's number over `n` seeds, its interval, the mean of ratios where the
    estimate is a ratio of means; the verdict and its reason."""

    experiment: str
    claim: Claim
    measured: float
    low: float
    high: float
    mean_of_ratios: float
    n: int
    verdict: str
    why: str


def judge(
    experiment: str, of: Sample, claim: Claim, others: Mapping[str, list[Sample]] | None = None
) -> Verdict:
    """Test a claim on a sample. `others`: preset -> samples that the claim may compare with."""
    nan = math.nan
    try:
        case = _case(of, claim, others or {})
        with np.errstate(all="ignore"):
            value = RULES[claim.name](case)
            each = RULES[claim.name](case, each=True) if claim.name in RATIOS else nan
            low, high = _interval(case, value)
    except Untestable as reason:
        return Verdict(experiment, claim, nan, nan, nan, nan, 0, "not enough data", str(reason))
    n = len(case.of.seeds)
    if reads_censored(case):
        return Verdict(experiment, claim, nan, nan, nan, nan, n, "cannot be judged", BUDGET)
    found = Verdict(experiment, claim, value, low, high, each, n, "", "")
    verdict, why = _decided(found, case)
    return found._replace(verdict=verdict, why=why)


def _case(of: Sample, claim: Claim, others: Mapping[str, list[Sample]]) -> Case:
    """Select the seeds that have everything that a claim needs. Raises Untestable."""
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
    """Pair the seeds of two presets. Raises Untestable."""
    if len(others) != 1:
        count = "several experiments" if others else "no runs"
        raise Untestable(f"{count} of {claim.argument} to compare with")
    shared = [seed for seed in of.seeds if seed in others[0].seeds]
    if not shared:
        raise Untestable(f"no seed that {claim.argument} has as well")
    own, other = (s.rows([s.seeds.index(seed) for seed in shared]) for s in (of, others[0]))
    return Case(own, claim, 0, other)


def _place(claim: Claim, densities: Array) -> tuple[int, int]:
    """Return the level that a claim is about, and the deepest level that it needs. Raises
    Untestable."""
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
        raise Untestable(
            f"the runs end at {lowest}, {depth:.3g} % are needed: set pruning.levels higher"
        )
    return 0, int(deep[0])


def _nearest(density: float, densities: Array) -> int:
    distances = np.abs(densities / density - 1)
    if np.nanmin(distances) > NEAR:
        raise Untestable(f"no level near {density:g} %")
    return int(np.nanargmin(distances))


def _interval(case: Case, value: float) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval over seeds; deterministic."""
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
    """Return the verdict and its reason."""
    claim = found.claim
    printed = 0.5 * 10.0**-claim.digits + SAME
    # levels lie on another grid of densities than the paper's
    at_a_level = claim.unit == "% density" and claim.bound == "="
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
    """Return whether noise alone, without any effect of pruning, explains the estimate."""
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
    """Return the 97.5 % quantile, over resampled seeds, of the highest gain if no level gains
    anything on average."""
    table = case.of.tables[case.claim.arm]
    even = {name: own - (own - own[:, :1]).mean(axis=0) for name, own in table.items()}
    nothing = replace(case.of, tables={**case.of.tables, case.claim.arm: even})
    return _interval(case._replace(of=nothing), 0.0)[1]
