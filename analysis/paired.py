"""Differences within a seed, between an arm and others that share its dense network."""

import pandas as pd

from analysis.arms import TICKET
from analysis.points import LINE, joined
from analysis.sample import learnt, reported_accuracy

SAME_DENSITY = 0.01
"""Largest relative difference between densities of networks that are compared."""


def paired(levels: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each line, level from 1 and seed, with draws averaged.

    `gain`: test accuracy above the seed's dense network; `behind`: below the seed's winning ticket
    of that level, if it has the same density; `gain_at_end`: test accuracy at the end of training
    above the dense network's; all in percentage points. `stop`: early stop as a multiple of the
    dense network's, missing if it is 0. `gain` and `behind` read accuracy at early stop, or at the
    end for VGG and ResNet. `gain_censored` and so on: whether one of the early stops that are
    compared is censored.
    """
    own = _by_seed(learnt(levels))
    dense = own[own["level"] == 0].drop_duplicates(["experiment", "seed"])
    ticket = own[own["arm"] == TICKET]
    measured = ["accuracy", "final", "stop", "censored", "accuracy_censored"]
    same, place = ["experiment", "seed"], ["experiment", "rate", "level", "seed"]
    pairs = own[own["level"] > 0]
    pairs = pairs.join(dense.set_index(same)[measured].add_suffix("_dense"), on=same)
    pairs = pairs.join(ticket.set_index(place)[measured].add_suffix("_ticket"), on=place)
    density = pairs[place].join(ticket.set_index(place)["density"], on=place)["density"]
    apart = (density / pairs["density"] - 1).abs() > SAME_DENSITY
    behind = 100 * (pairs["accuracy_ticket"] - pairs["accuracy"]).mask(apart)
    return pairs.assign(
        gain=100 * (pairs["accuracy"] - pairs["accuracy_dense"]),
        gain_at_end=100 * (pairs["final"] - pairs["final_dense"]),
        behind=behind.where(pairs["arm"] != TICKET),
        stop=(pairs["stop"] / pairs["stop_dense"]).where(pairs["stop"] > 0),  # has a logarithm
        gain_censored=_either(pairs, "accuracy_censored", "accuracy_censored_dense"),
        behind_censored=_either(pairs, "accuracy_censored", "accuracy_censored_ticket"),
        stop_censored=_either(pairs, "censored", "censored_dense"),
    )


def _either(pairs: pd.DataFrame, *names: str) -> "pd.Series[bool]":
    return pairs[[*names]].eq(True).any(axis=1)  # a missing network is not censored


def _by_seed(levels: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy and early stop of each line, level and seed."""
    reported = levels["model"].map(lambda model: reported_accuracy({"model": model}))
    at_end = reported == "final_test_accuracy"
    chosen = levels["early_stop_test_accuracy"].where(~at_end, levels["final_test_accuracy"])
    own = levels.assign(accuracy=chosen, accuracy_censored=levels["censored"] & ~at_end)
    by_seed = own.groupby([*LINE, "level", "seed"], sort=False)
    return by_seed.agg(
        density=("density", "mean"),
        accuracy=("accuracy", "mean"),
        final=("final_test_accuracy", "mean"),
        stop=("early_stop_iteration", "mean"),
        censored=("censored", "any"),
        accuracy_censored=("accuracy_censored", "any"),
        run=("run", joined),
    ).reset_index()
