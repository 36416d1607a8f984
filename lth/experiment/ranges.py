"""Ranges of numbers, checked in settings and written into their JSON schemas."""

import dataclasses
from typing import Any

from pydantic import AfterValidator


def interval(low: float, high: float, ends: str = "()") -> AfterValidator:
    """Accept numbers between `low` and `high`; a square bracket in `ends` includes that end."""

    def check(value: float) -> float:
        above = value >= low if ends[0] == "[" else value > low
        below = value <= high if ends[1] == "]" else value < high
        if not (above and below):
            raise ValueError(f"must be in {ends[0]}{low:g}, {high:g}{ends[1]}")
        return value

    return InInterval(check, low, high, ends)


@dataclasses.dataclass(frozen=True)
class InInterval(AfterValidator):
    """A validator whose interval also stands in JSON schemas."""

    low: float
    high: float
    ends: str

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401
        least = "minimum" if self.ends[0] == "[" else "exclusiveMinimum"
        most = "maximum" if self.ends[1] == "]" else "exclusiveMaximum"
        return {**handler(core), least: self.low, most: self.high}
