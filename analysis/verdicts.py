"""Test one claim on the trials of an experiment. Two questions are asked.

Effect: is there an effect in the claimed direction at all? A one-sided paired t-test answers it,
corrected for the number of tests of an experiment (`analysis.claims`).

Agreement: do the trials agree with the number that the paper prints? That number is a mean of a few
trials itself. It is inconsistent with ours if a 95 % prediction interval excludes it, and agrees if
a 90 % interval of the difference is within a margin. Bounds are supported or contradicted by a
one-sided bound of 95 %. Everything else is undecided.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

import numpy as np

from analysis.case import NEAR, Case, down_to_depth
from analysis.crossings import Crossing, crossing
from analysis.intervals import FEWEST, Array, Mean, mean_of, trials_that_decide
from analysis.paper import Claim
from analysis.rules import ACCURACY_MARGIN, RULES, DensityRule, Rule
from analysis.sample import (
    ACCURACY,
    BUDGET,
    CENSORED,
    COARSE,
    FINAL,
    SAME,
    STOP,
    Sample,
    Untestable,
    reported_accuracy,
)

CONFIDENCE = 0.95
EQUIVALENT = 0.9
"""Confidence of the interval that must be within a margin: two one-sided tests at 5 % each."""
MARGINS = {"points": ACCURACY_MARGIN, "%": 10.0}
"""Unit -> largest difference from the paper's number that counts as agreement: points of accuracy,
and percent by which an early stop comes earlier."""
RELATIVE = 0.25
"""The same for all other numbers, as a fraction of the paper's."""
ALPHA = 0.05
DESIGNED = "as designed"
"""Agreement of numbers that follow from the design alone."""


class Verdict(NamedTuple):
    """The estimate of a claim's number over `n` trials with its 95 % interval, and the mean of
    ratios where the estimate is a ratio of means. `p`: of the test of the effect, nan without one;
    `effect`: shown, not shown, or ""; `agreement` with the paper's number, and `why`."""

    experiment: str
    claim: Claim
    measured: float
    low: float
    high: float
    mean_of_ratios: float
    n: int
    p: float
    effect: str
    agreement: str
    why: str


def judge(
    experiment: str, of: Sample, claim: Claim, others: Mapping[str, list[Sample]] | None = None
) -> Verdict:
    """Test a claim on a sample. `others`: preset -> samples that the claim may compare with. The
    effect is not decided here, only its p-value."""
    nan = math.nan
    nothing = Verdict(experiment, claim, nan, nan, nan, nan, 0, nan, "", "", "")
    try:
        case = case_of(of, claim, others or {})
    except Untestable as reason:
        return nothing._replace(agreement="not enough data", why=str(reason))
    rule, nothing = RULES[claim.name], nothing._replace(n=len(case.sample.seeds))
    if reads_censored(rule, case):
        return nothing._replace(agreement="cannot be judged", why=BUDGET)
    try:
        if isinstance(rule, DensityRule):
            found = _of_crossing(rule, case, nothing)
        else:
            found = _of_mean(rule, case, nothing)
    except Untestable as reason:
        return nothing._replace(agreement="not enough data", why=str(reason))
    dropped = _listed(case.sample.dropped)
    lacking = f"seeds without the data for it: {dropped}" if dropped else ""
    return found._replace(why="; ".join(filter(None, (found.why, lacking))))


def _listed(seeds: Iterable[int]) -> str:
    """Return seeds in words, e.g. `0, 5 to 19`."""
    ordered = enumerate(sorted(seeds))
    spans = [[s for _, s in span] for _, span in groupby(ordered, lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{s[0]} to {s[-1]}" if len(s) > 2 else ", ".join(map(str, s)) for s in spans)


def _of_mean(rule: Rule, case: Case, found: Verdict) -> Verdict:
    """Judge a rule that has a number for each trial."""
    with np.errstate(all="ignore"):
        values = rule.numbers(case)
        if rule.each:
            found = found._replace(mean_of_ratios=float(rule.each(case).mean()))
    found = found._replace(measured=float(values.mean()))
    if rule.exact:
        agreement, why = _as_designed(found.measured, case.claim)
        value = found.measured
        return found._replace(low=value, high=value, agreement=agreement, why=why)
    if found.n < FEWEST:
        return _too_few(found)
    mean = mean_of(values)
    if STOP in rule.reads and mean.deviation <= SAME:
        return found._replace(agreement="undecided", why=COARSE)
    half = mean.half(CONFIDENCE)
    agreement, why = (
        _equal(mean, case.claim) if case.claim.bound == "=" else _bounded(mean, case.claim)
    )
    found = found._replace(low=mean.value - half, high=mean.value + half)
    return found._replace(p=p_of(rule, case), agreement=agreement, why=why)


def _of_crossing(rule: DensityRule, case: Case, found: Verdict) -> Verdict:
    """Judge a rule about the whole sequence of levels."""
    if found.n < FEWEST:
        return _too_few(found)
    own = crossing(rule, case, confidence=CONFIDENCE)
    agreement, why = (_equal_density if case.claim.bound == "=" else _bounded_density)(rule, case)
    found = found._replace(measured=own.value, low=own.low, high=own.high)
    return found._replace(p=p_of(rule, case), agreement=agreement, why=why)


def _too_few(found: Verdict) -> Verdict:
    why = f"n = {found.n} seeds; {FEWEST} are the fewest"
    return found._replace(agreement="not enough data", why=why)


def _as_designed(value: float, claim: Claim) -> tuple[str, str]:
    """Judge a number that does not depend on chance."""
    same = abs(value - claim.value) <= _printed(claim)
    return (DESIGNED, "") if same else ("not as designed", f"it is {value:g}")


def _printed(claim: Claim) -> float:
    """Return how far a number may be from the one that it is printed as."""
    return 0.5 * 10.0**-claim.digits + SAME


def margin_of(claim: Claim) -> float:
    """Return the largest difference from the paper's number that counts as agreement."""
    if claim.name == "final_accuracy":
        return ACCURACY_MARGIN
    return MARGINS.get(claim.unit, RELATIVE * claim.value)


def _equal(mean: Mean, claim: Claim) -> tuple[str, str]:
    """Judge a number that the paper gives as the mean of its trials."""
    margin = margin_of(claim)
    away, half = abs(mean.value - claim.value), mean.half(EQUIVALENT, claim.trials)
    if away + half <= margin:
        return "agrees", f"within {margin:.3g}"
    if away > mean.half(CONFIDENCE, claim.trials) + _printed(claim):
        return "inconsistent", f"measured {'above' if mean.value > claim.value else 'below'} it"
    if half <= margin:
        return "undecided", f"± {half:.2g}, neither excluded nor within {margin:.2g}"
    needed = trials_that_decide(mean.deviation, margin, EQUIVALENT, claim.trials)
    how = f": {needed} trials" if needed else f"; the paper's {claim.trials} trials do not allow it"
    return "undecided", f"± {half:.2g}, and a decision needs ± {margin:.2g}{how}"


def _bounded(mean: Mean, claim: Claim) -> tuple[str, str]:
    """Judge a number that the paper gives as a bound."""
    above = 1 if claim.bound.startswith(">") else -1
    beyond, half = above * (mean.value - claim.value), mean.bound(CONFIDENCE)
    if beyond - half >= 0 and not (claim.bound == ">" and beyond - half == 0):
        return "supported", ""
    if beyond + half < 0:
        return "contradicted", ""
    needed = trials_that_decide(mean.deviation, abs(beyond), 2 * CONFIDENCE - 1, 0)
    decide = f": {needed} trials could decide" if needed else ""
    return "undecided", f"± {half:.2g}{decide}"


def _equal_density(rule: DensityRule, case: Case) -> tuple[str, str]:
    """Judge a density at which something ends or begins, as the paper gives it."""
    value, widest = case.claim.value, 1 + RELATIVE + SAME
    near = crossing(rule, case, confidence=EQUIVALENT, others=case.claim.trials)
    if near.low > 0 and near.high <= widest * value and value <= widest * near.low:
        return "agrees", f"within {RELATIVE:.0%}"
    found = crossing(rule, case, confidence=CONFIDENCE, others=case.claim.trials)
    inside = found.low * (1 - NEAR) <= value <= found.high * (1 + NEAR)
    agreement = "undecided" if inside else "inconsistent"
    return agreement, f"a repetition of the paper's trials could give {_between(found, case.claim)}"


def _bounded_density(rule: DensityRule, case: Case) -> tuple[str, str]:
    """Judge a bound of the density at which something ends."""
    claim = case.claim
    deeper = claim.bound == "<="
    margin = rule.margin if deeper else 0.0
    found = crossing(rule, case, confidence=2 * CONFIDENCE - 1, margin=margin)
    reached = found.high <= claim.value if deeper else found.low >= claim.value
    missed = found.low > claim.value if deeper else found.high < claim.value
    agreement = "supported" if reached else "contradicted" if missed else "undecided"
    return agreement, f"it ends at {_between(found, claim)}"


def _between(found: Crossing, claim: Claim) -> str:
    unit = " %" if claim.unit.startswith("%") else ""
    if not found.low:
        return "any density" if unit and found.high >= 100 else f"{found.high:,.3g}{unit} or below"
    low = f"{found.low:,.3g} to " if found.low < found.high else ""
    return f"{low}{found.high:,.3g}{unit}"


def p_of(rule: Rule, case: Case) -> float:
    """Return the p-value of an effect in the claimed direction, nan if none is tested. The effect
    of a condition is on average over the levels down to the claimed density, or from there on."""
    if rule.no_effect is None:
        return math.nan
    numbers = rule.numbers(case) - rule.no_effect
    if not isinstance(rule, DensityRule):
        return mean_of(numbers).p_value()
    if case.claim.bound != "=":
        return math.nan
    if rule.finds == "after the last":
        return mean_of(-numbers[:, case.place : case.depth + 1].mean(axis=1)).p_value()
    last = (case.place if rule.finds == "last" else 0) or case.depth
    return mean_of(numbers[:, 1 : last + 1].mean(axis=1)).p_value()


def reads_censored(rule: Rule, case: Case) -> bool:
    """Return whether a claim is about early stops of which one is censored."""
    at_end = case.other is not None and reported_accuracy(case.sample.settings) == FINAL
    if at_end or not {STOP, ACCURACY} & {*rule.reads}:
        return False
    levels = [*(down_to_depth if isinstance(rule, DensityRule) else rule.levels)(case)]
    samples = [case.sample] if case.other is None else [case.sample, case.other]
    tables = [own[CENSORED][:, levels] for s in samples for own in s.tables.values()]
    return any((table > 0).any() for table in tables)


def case_of(of: Sample, claim: Claim, others: Mapping[str, list[Sample]]) -> Case:
    """Select the seeds that have everything that a claim needs. Raises Untestable."""
    if claim.name not in RULES:
        raise Untestable(claim.argument.replace("_", " "))
    if claim.name == "dense_gain":
        return _compared(of, claim, others.get(claim.argument, []))
    if not claim.arm:
        return Case(of, claim, 0, 0)
    if claim.arm not in of.densities:
        raise Untestable(f"no runs of the arm {claim.arm}")
    place, depth = _place(claim, 100 * of.densities[claim.arm])
    rule = RULES[claim.name]
    arms = sorted({claim.arm, rule.other_arm or claim.arm})
    levels = [*rule.levels(Case(of, claim, place, depth))]
    whole = of.complete(arms, rule.reads, levels, depth)
    if isinstance(rule, DensityRule) and {STOP, ACCURACY} & {*rule.reads}:
        whole = _without_censored(whole, claim.arm, depth)
    return Case(whole, claim, place, depth)


def _without_censored(of: Sample, arm: str, depth: int) -> Sample:
    """Cut a sequence of early stops before the first level beyond a claim's depth that is censored,
    or that some trial lacks."""
    censored, accuracy = of.values(arm, CENSORED) > 0, of.values(arm, ACCURACY)
    unknown = np.asarray((censored | np.isnan(accuracy)).any(axis=0))
    beyond = np.flatnonzero(unknown[depth + 1 :])
    return of.first(depth + 1 + int(beyond[0])) if len(beyond) else of


def _compared(of: Sample, claim: Claim, others: list[Sample]) -> Case:
    """Pair the seeds of two presets. Raises Untestable."""
    if len(others) != 1:
        count = "several experiments" if others else "no runs"
        raise Untestable(f"{count} of {claim.argument} to compare with")
    shared = sorted(_with_dense(of) & _with_dense(others[0]))
    if not shared:
        raise Untestable(f"no seed that {claim.argument} has as well")
    own, other = (s.rows([s.seeds.index(seed) for seed in shared]) for s in (of, others[0]))
    return Case(own, claim, 0, 0, other)


def _with_dense(of: Sample) -> set[int]:
    """Return the seeds with the accuracy of a dense network."""
    dense = next(iter(of.tables.values()))[reported_accuracy(of.settings)][:, 0]
    return {seed for seed, accuracy in zip(of.seeds, dense, strict=True) if accuracy >= 0}


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
    at_a_level = claim.unit == "% density" and claim.bound == "="
    place = _nearest(claim.value, densities) if at_a_level else 0
    depth = claim.depth if claim.depth is not None else claim.value * (1 - NEAR)
    deep = np.flatnonzero(densities <= depth + SAME)
    if not len(deep):
        lowest = f"{np.nanmin(densities):.3g} %"
        raise Untestable(
            f"the runs end at {lowest}, {depth:.3g} % are needed: set pruning.levels higher"
        )
    return place, int(deep[0])


def _nearest(density: float, densities: Array) -> int:
    distances = np.abs(densities / density - 1)
    if np.nanmin(distances) > NEAR:
        raise Untestable(f"no level near {density:g} %")
    return int(np.nanargmin(distances))
