"""Test the paper's claims on runs that follow its presets."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.intervals import holm
from analysis.labels import OWN, SPLIT
from analysis.paper import Claim, paper_claims
from analysis.protocol import Departure, departures, has_preset
from analysis.runs import Runs
from analysis.sample import Sample, sample
from analysis.verdicts import ALPHA, Verdict, judge


@dataclass(frozen=True, eq=False)
class Followers:
    """The runs of one experiment that follow one preset at one rate."""

    experiment: str
    preset: str
    rate: str
    identity: Mapping[str, Any]
    departures: tuple[Departure, ...]
    sample: Sample

    @property
    def disqualified(self) -> set[str]:
        """Names of the settings by which the runs test only claims about such a variant."""
        return {found.setting for found in self.departures if found.effect == "disqualifies"}

    def can_test(self, claim: Claim) -> bool:
        about = claim.is_about(self.preset, self.identity)
        return about and self.disqualified <= claim.variant

    def title(self, claim: Claim) -> str:
        """Return the experiment, its rate, and its departures that the claim is not about."""
        named = [str(found) for found in self.departures if found.setting not in claim.variant]
        departs = f" (departs from the preset: {', '.join(named)})" if named else ""
        return f"{self.experiment}, {self.rate} a level{departs}"


def judged(runs: Runs) -> Iterator[Verdict]:
    """Test every claim on every experiment and rate that it is about, one after the other."""
    claims = paper_claims()
    found = list(_followers(runs, claims))
    others = _comparable(found)
    for experiment, preset in dict.fromkeys((each.experiment, each.preset) for each in found):
        rates = [each for each in found if (each.experiment, each.preset) == (experiment, preset)]
        yield from with_effects(
            [
                judge(each.title(claim), each.sample, claim, others)
                for each in rates
                for claim in claims
                if each in _able(rates, claim)
            ]
        )


def _able(rates: Sequence[Followers], claim: Claim) -> Sequence[Followers]:
    """Return the rates of an experiment at which a claim is tested."""
    able = [each for each in rates if each.can_test(claim)]
    return [each for each in able if claim.arm in ("", *each.sample.tables)] or able[:1]


def with_effects(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts of an experiment with their effects: each test is one of several."""
    corrected = iter(holm([found.p for found in verdicts if not math.isnan(found.p)]))
    return [
        found if math.isnan(found.p) else _with_effect(found, next(corrected)) for found in verdicts
    ]


def _with_effect(found: Verdict, p: float) -> Verdict:
    return found._replace(p=p, effect="shown" if p <= ALPHA else "not shown")


def _comparable(found: Sequence[Followers]) -> dict[str, list[Sample]]:
    """Return, for each preset, a sample of each experiment: of its rates, which share their dense
    networks, the one with the most seeds."""
    samples = {
        (each.preset, each.experiment): each.sample
        for each in sorted(found, key=lambda each: len(each.sample.seeds))
        if not each.disqualified
    }
    of_presets: dict[str, list[Sample]] = {}
    for (preset, _), of in samples.items():
        of_presets.setdefault(preset, []).append(of)
    return of_presets


def _shared_split(row: Mapping[Any, Any]) -> list[Departure]:
    """Return the departure of trials that share one validation split, as the paper's do not."""
    split = row.get("split", OWN)
    return [] if split == OWN else [Departure(SPLIT, split, "that of each seed", "is named")]


def _followers(runs: Runs, claims: list[Claim]) -> Iterator[Followers]:
    """Group the levels of the runs that prune and follow a preset with claims."""
    levels = runs.levels
    prunes = levels.groupby("experiment")["level"].transform("max") > 0
    presets = [str(preset) for preset in levels["preset"].dropna().unique()]
    known = {p for p in presets if has_preset(p) and any(c.matches(p) for c in claims)}
    named = levels[prunes & levels["preset"].isin(known)]
    compared = {
        (row["experiment"], row["run"]): (
            *departures(row["preset"], row["dataset"], runs.identities[row["run"]]),
            *_shared_split(row),
        )
        for row in named.drop_duplicates(["experiment", "run"]).to_dict("records")
    }
    places = zip(named["experiment"], named["run"], strict=True)
    departed = [" ".join(map(str, compared[place])) for place in places]
    key = ["experiment", "preset", "rate", "departures"]
    grouped = named.assign(departures=departed).groupby(key, sort=False)
    for (experiment, preset, rate, _), rows in grouped:
        run = rows["run"].iloc[0]
        found = compared[experiment, run]
        yield Followers(experiment, preset, rate, runs.identities[run], found, sample(rows))
