"""Test the paper's claims on runs that follow its presets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.collect import Runs
from analysis.measured import Sample, sample
from analysis.paper import Claim, paper_claims
from analysis.protocol import Departure, departures, has_preset
from analysis.verdicts import Verdict, judge


@dataclass(frozen=True)
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
    others: dict[str, list[Sample]] = {}
    for each in found:
        if not each.disqualified:
            others.setdefault(each.preset, []).append(each.sample)
    for experiment, preset in dict.fromkeys((each.experiment, each.preset) for each in found):
        rates = [each for each in found if (each.experiment, each.preset) == (experiment, preset)]
        for claim in claims:
            able = [each for each in rates if each.can_test(claim)]
            with_arm = [each for each in able if claim.arm in ("", *each.sample.tables)]
            for each in with_arm or able[:1]:
                yield judge(each.title(claim), each.sample, claim, others)


def _followers(runs: Runs, claims: list[Claim]) -> Iterator[Followers]:
    """Group the levels of the runs that prune and follow a preset with claims."""
    levels = runs.levels
    prunes = levels.groupby("experiment")["level"].transform("max") > 0
    presets = [str(preset) for preset in levels["preset"].dropna().unique()]
    known = {p for p in presets if has_preset(p) and any(c.matches(p) for c in claims)}
    named = levels[prunes & levels["preset"].isin(known)]
    compared = {
        row["run"]: tuple(departures(row["preset"], row["dataset"], runs.identities[row["run"]]))
        for row in named.drop_duplicates("run").to_dict("records")
    }
    departed = named["run"].map(lambda run: " ".join(map(str, compared[run])))
    key = ["experiment", "preset", "rate", departed.rename("departures")]
    for (experiment, preset, rate, _), rows in named.groupby(key, sort=False):
        run = rows["run"].iloc[0]
        identity = runs.identities[run]
        yield Followers(experiment, preset, rate, identity, compared[run], sample(rows))
