"""The paper's figures, one function each: what the runs can support of it, or None.

Rows of panels are experiments, columns what is measured. The paper's own form is in the docstrings.
"""

from collections.abc import Callable, Mapping, Set
from functools import partial

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis import drawing
from analysis.collect import ARMS, REPLICATE, Runs
from analysis.drawing import Plate
from analysis.paired import paired
from analysis.points import LINE, points

TICKET, REINIT, RANDOM, ONE_SHOT, ONE_SHOT_REINIT = ARMS
RANDOM_REINIT, CONTINUED = f"{RANDOM}, {REINIT}", "continued training"
LENET, CONV = {"lenet_300_100"}, {"conv2", "conv4", "conv6"}
VGG, RESNET = {"vgg11", "vgg13", "vgg16", "vgg19"}, {"resnet18", "resnet20", "resnet32", "resnet56"}

QUANTITIES = {
    "early_stop_iteration": "Early-stop iteration",
    "early_stop_test_accuracy": "Test accuracy at early stop",
    "early_stop_train_accuracy": "Training accuracy at early stop",
    "final_test_accuracy": "Test accuracy at the end",
    "final_train_accuracy": "Training accuracy at the end",
    "test_accuracy": "Test accuracy",
    "seconds": "Seconds of training",
    "kept": "Density of the layer",
    "barrier": "Error barrier",
    "gain": "Points above dense, at early stop",
    "gain_at_end": "Points above dense, at the end",
    "behind": "Points behind the ticket",
    "stop": "Early stop / that of dense",
}
STOP, AT_STOP, TRAIN_AT_STOP, AT_END, TRAIN_AT_END = tuple(QUANTITIES)[:5]

CURVE_DENSITIES = (1.0, 0.513, 0.211, 0.070, 0.036, 0.019)
"""Those of the paper's figure 3."""
LENET_ITERATIONS = 15_000
"""How far it goes, of LeNet."""
NEAR = 0.15
"""How far from one of them, relatively, a level's density may be to be drawn for it."""
STABLE = 0.02
"""Below this barrier copies count as connected (Frankle et al. 2020, section 2)."""


def figure1(runs: Runs) -> Plate | None:
    """Winning tickets against randomly sampled sparse networks: early stop, accuracy there."""
    both = _with_arms(runs.levels, {TICKET, RANDOM})
    return _against_density(both, (STOP, AT_STOP))


def figure3(runs: Runs) -> Plate | None:
    """Test accuracy against iteration at six densities: a panel an arm and rate."""
    levels = _of_arms(runs.levels, {TICKET, REINIT})
    if levels.empty:
        return None
    short = set(_of_models(levels, LENET)["experiment"])
    metrics = runs.curves(at_densities(levels))
    shown = _in_all_runs(metrics, "experiment")  # where all improved, or are tested anyway
    found = points(shown, "test_accuracy", "iteration")
    rows = list(found.groupby(["experiment", "rate"], sort=False))
    figure, axes = drawing.panels(len(rows), found["arm"].nunique(), width=4.6)
    for row, ((experiment, rate), of_row) in zip(axes, rows, strict=True):
        arms = list(of_row.groupby("arm", sort=False))
        for axis in row[len(arms) :]:
            axis.remove()
        for axis, (arm, of_arm) in zip(row, arms, strict=False):
            _draw_curves(axis, of_arm, of_row)
            if experiment in short:
                axis.set_xlim(right=min(of_row["iteration"].max(), LENET_ITERATIONS))
            drawing.title(axis, f"{experiment}\n{arm}, {rate} a level")
    drawing.caption(figure, found)
    return Plate(figure, found)


def figure4(runs: Runs) -> Plate | None:
    """LeNet: early stop, accuracies there and at the end, all ways to prune and reinits."""
    lenet = _of_models(runs.levels, LENET)
    return _against_density(
        _of_arms(lenet, {TICKET, REINIT, ONE_SHOT, ONE_SHOT_REINIT}),
        (STOP, AT_STOP, AT_END, TRAIN_AT_STOP),
    )


def figure4c(runs: Runs) -> Plate | None:
    """LeNet, one-shot alone, on a linear axis."""
    one_shot = _of_arms(_of_models(runs.levels, LENET), {ONE_SHOT, ONE_SHOT_REINIT})
    return _against_density(one_shot, (STOP, AT_STOP), linear=True)


def figure5(runs: Runs) -> Plate | None:
    """Conv-2, 4 and 6: what figure 4 has of LeNet, iterative alone."""
    conv = _of_models(runs.levels, CONV)
    return _against_density(
        _of_arms(conv[~_drops_out(conv)], {TICKET, REINIT}),
        (STOP, AT_STOP, TRAIN_AT_STOP, AT_END),
    )


def figure6(runs: Runs) -> Plate | None:
    """The same with dropout; the same network without it stands behind, faint."""
    conv = _of_arms(_of_models(runs.levels, CONV), {TICKET, REINIT})
    with_dropout = _drops_out(conv)
    return _against_density(
        conv[with_dropout], (STOP, AT_STOP, TRAIN_AT_STOP, AT_END), behind=conv[~with_dropout]
    )


def figure7(runs: Runs) -> Plate | None:
    """VGG-19: test accuracy at iterations 30,000, 60,000 and the end, by learning rate."""
    return _on_the_way(runs, VGG, (30_000 / 112_480, 60_000 / 112_480, 1.0))


def figure8(runs: Runs) -> Plate | None:
    """ResNet-18: test accuracy at iterations 10,000, 20,000 and the end, by learning rate."""
    return _on_the_way(runs, RESNET, (1 / 3, 2 / 3, 1.0))


def figure9(runs: Runs) -> Plate | None:
    """Resetting against continued training (figures 9 and 10)."""
    return _against_density(_with_arms(runs.levels, {TICKET, CONTINUED}), (STOP, AT_STOP))


def figure12(runs: Runs) -> Plate | None:
    """Training accuracy at the end (figures 12 and 13)."""
    usual = {TICKET, REINIT, ONE_SHOT, ONE_SHOT_REINIT}
    return _against_density(_of_arms(runs.levels, usual), (TRAIN_AT_END,))


def figure14(runs: Runs) -> Plate | None:
    """Random reinitialisation against random sparsity."""
    arms = {TICKET, REINIT, RANDOM, RANDOM_REINIT}
    return _against_density(_with_arms(runs.levels, arms, needed={REINIT, RANDOM}), (STOP, AT_STOP))


def settings(runs: Runs) -> Plate | None:
    """Winning tickets of one network under different settings (appendix G)."""
    tickets = _of_arms(runs.levels, {TICKET})
    several = tickets.groupby("network")["experiment"].transform("nunique") > 1
    return _against_density(tickets[several], (STOP, AT_STOP, AT_END), hue="setting")


def arms(runs: Runs) -> Plate | None:
    """All arms of every experiment that has others than those of figures 4 and 5."""
    usual = {TICKET, REINIT, ONE_SHOT, ONE_SHOT_REINIT}
    known = runs.levels["model"].isin(LENET | CONV) & runs.levels["arm"].isin(usual)
    others = set(runs.levels.loc[~known, "experiment"])
    chosen = runs.levels[runs.levels["experiment"].isin(others)]
    return _against_density(chosen, (STOP, AT_STOP, AT_END))


def layers(runs: Runs) -> Plate | None:
    """Density of each layer of the winning tickets, level by level."""
    tickets = _of_arms(runs.levels, {TICKET})
    columns = [name for name in tickets.columns if str(name).startswith("density/")]
    rows = tickets.melt([*LINE, "level", "density", "run"], columns, "layer", "kept")
    if rows.dropna(subset=["kept"]).empty:
        return None
    rows["layer"] = rows["layer"].str.removeprefix("density/")
    found = points(rows, "kept", "layer")
    lines = list(found.groupby(["experiment", "rate"], sort=False))
    figure, axes = drawing.panels(-(-len(lines) // 3), min(len(lines), 3), width=4.6)
    for axis in axes.flat[len(lines) :]:
        axis.remove()
    for axis, ((experiment, rate), of_line) in zip(axes.flat, lines, strict=False):
        there = set(of_line["layer"])
        own = drawing.colours([name for name in rows["layer"].unique() if name in there])
        few = len(own) <= drawing.SIDE_ENTRIES
        drawing.draw_lines(
            axis, of_line, "level", colour="layer", colours=own, dash="layer", marked=few
        )
        axis.set(yscale="log", xlabel="Level", ylabel=QUANTITIES["kept"])
        drawing.title(axis, f"{experiment}\n{rate} a level")
        drawing.density_ticks(axis.yaxis, of_line["mean"].min())
        drawing.side_legend(axis, own, "Layer")
    drawing.caption(figure, found)
    return Plate(figure, found)


def differences(runs: Runs) -> Plate | None:
    """What arms differ in within a seed, from the dense network and from the winning ticket."""
    pairs = paired(runs.levels)
    plate = _against_density(pairs, ("gain", "gain_at_end", "behind", "stop"), interval=True)
    for axis in plate.figure.axes if plate else ():
        if axis.get_ylabel() == QUANTITIES["stop"]:
            drawing.ratio_axis(axis)
        else:
            drawing.points_axis(axis)
    return plate


def time(runs: Runs) -> Plate | None:
    """How long a training takes at each density."""
    return _against_density(runs.levels, ("seconds",))


def connectivity(runs: Runs) -> Plate | None:
    """Linear mode connectivity: how far test error between two copies rises above their mean."""
    if runs.lines.empty:
        return None
    line = [*LINE, *REPLICATE, "level", "density", "iteration", "run"]
    in_order = runs.lines.assign(error=1 - runs.lines["test_accuracy"]).sort_values("share")
    error = in_order.groupby(line, as_index=False)["error"].agg(["first", "last", "max"])
    barriers = error.assign(barrier=error["max"] - (error["first"] + error["last"]) / 2)
    parted = [
        f"{arm}, apart from {i:,}" for arm, i in zip(error["arm"], error["iteration"], strict=True)
    ]
    plate = _against_density(barriers.assign(arm=parted), ("barrier",))
    for axis in plate.figure.axes if plate else ():
        axis.axhline(STABLE, color="0.4", linestyle="--", linewidth=1)
        axis.yaxis.set_major_formatter(drawing.percent)
    return plate


FIGURES: dict[str, Callable[[Runs], Plate | None]] = {
    function.__name__: function
    for function in (figure1, figure3, figure4, figure4c, figure5, figure6, figure7, figure8,
                     figure9, figure12, figure14, settings, arms, differences, layers,
                     connectivity, time)
}  # fmt: skip
"""Name -> what draws it, in the order of the paper; then those that it does not have."""


def _of_models(levels: pd.DataFrame, models: Set[str]) -> pd.DataFrame:
    return levels[levels["model"].isin(models)]


def _of_arms(levels: pd.DataFrame, arms: Set[str]) -> pd.DataFrame:
    return levels[levels["arm"].isin(arms)]


def _with_arms(
    levels: pd.DataFrame, arms: Set[str], needed: Set[str] = frozenset()
) -> pd.DataFrame:
    """These arms of the experiments that have all that are `needed` (by default all of these)."""
    there = levels.groupby("experiment")["arm"].agg(set)
    whole = there[there.map(set(needed or arms).issubset)].index
    return _of_arms(levels[levels["experiment"].isin(whole)], arms)


def _drops_out(levels: pd.DataFrame) -> "pd.Series[bool]":
    name = "model.options.dropout"
    return levels[name].fillna(0) > 0 if name in levels else pd.Series(False, levels.index)


def at_densities(levels: pd.DataFrame) -> pd.DataFrame:
    """The levels nearest to CURVE_DENSITIES, on the ladder of each line."""
    parts = []
    for _, rows in levels.groupby(LINE, sort=False):
        ladder = rows["density"].drop_duplicates()
        distances = [(ladder / wanted - 1).abs() for wanted in CURVE_DENSITIES]
        chosen = {ladder[distance.idxmin()] for distance in distances if distance.min() < NEAR}
        parts.append(rows[rows["density"].isin(chosen)])
    return pd.concat(parts)


def _in_all_runs(metrics: pd.DataFrame, *among: str) -> pd.DataFrame:
    """The points of curves at which every curve was tested that agrees in the columns `among`."""
    curve = metrics["run"] + " " + metrics["level"].astype(str)
    curves = curve.groupby([metrics[name] for name in among]).transform("nunique")
    there = [metrics[name] for name in (*among, "iteration")]
    return metrics[curve.groupby(there).transform("nunique") == curves]


def density_colours(densities: "pd.Series[float]") -> dict[str, drawing.Colour]:
    """In words, from the highest down; one of CURVE_DENSITIES has the same colour everywhere."""
    ordered = sorted(densities.unique(), reverse=True)
    near = [min(range(6), key=lambda n: abs(CURVE_DENSITIES[n] / d - 1)) for d in ordered]
    palette = sns.color_palette("viridis", len(CURVE_DENSITIES))
    return {drawing.in_percent(d): palette[n] for d, n in zip(ordered, near, strict=True)}


def _draw_curves(axis: Axes, found: pd.DataFrame, of_row: pd.DataFrame) -> None:
    """The curves of one arm, on the scale of all in its row."""
    own = density_colours(found["density"])
    shown = found.assign(shown=[drawing.in_percent(density) for density in found["density"]])
    drawing.draw_lines(axis, shown, "iteration", colour="shown", colours=own, marked=False)
    axis.set(xlabel="Iteration", ylabel=QUANTITIES["test_accuracy"])
    axis.margins(x=0.01)
    dense = of_row[of_row["level"] == 0]
    last = dense.loc[dense["iteration"] == dense["iteration"].max(), "mean"].mean()
    drawing.accuracy_axis(axis, last, of_row)
    drawing.side_legend(axis, own, "Density")


def _on_the_way(runs: Runs, models: Set[str], shares: tuple[float, ...]) -> Plate | None:
    """Test accuracy at shares of the budget, or where all were tested last before that."""
    levels = _of_arms(_of_models(runs.levels, models), {TICKET, REINIT})
    if levels.empty:
        return None
    tested = _in_all_runs(runs.curves(levels), *LINE, "level").sort_values("iteration")
    found = {}
    for share in shares:
        before = tested[tested["iteration"] <= (share * tested["final_iteration"]).round()]
        last = before.groupby([*LINE, "level", "run"], as_index=False).tail(1)
        at = ", ".join(f"{iteration:,}" for iteration in sorted(last["iteration"].unique()))
        found[f"Test accuracy at iteration {at}"] = points(last, "test_accuracy")
    return _grid(found, levels, hue="setting")


def _against_density(
    levels: pd.DataFrame,
    quantities: tuple[str, ...],
    *,
    hue: str = "arm",
    linear: bool = False,
    behind: pd.DataFrame | None = None,
    interval: bool = False,
) -> Plate | None:
    """A panel for each quantity and experiment; or, with hue="setting", each network."""
    if levels.empty:
        return None
    found = {QUANTITIES[q]: points(levels, q, interval=interval) for q in quantities}
    faint = (
        {}
        if behind is None
        else {QUANTITIES[q]: _named(points(behind, q), behind) for q in quantities}
    )
    return _grid(found, levels, hue=hue, linear=linear, behind=faint)


def _grid(
    found: Mapping[str, pd.DataFrame],
    levels: pd.DataFrame,
    *,
    hue: str,
    linear: bool = False,
    behind: Mapping[str, pd.DataFrame] | None = None,
) -> Plate | None:
    """A row of panels for each experiment or network, a column for each of `found` by its label."""
    title = "experiment" if hue == "arm" else "network"
    numbers = {label: _named(of_label, levels, hue) for label, of_label in found.items()}
    numbers = {label: of.assign(panel=label) for label, of in numbers.items() if of["n"].sum()}
    if not numbers:
        return None
    everything = pd.concat(numbers.values())
    own, dash = _colours(everything, hue), "kind" if everything["kind"].any() else hue
    rows = everything[title].nunique()
    square = rows == 1 and len(numbers) == 4
    figure, axes = drawing.panels(2, 2) if square else drawing.panels(rows, len(numbers))
    for row, name in zip(axes.reshape(rows, -1), everything[title].unique(), strict=True):
        for axis, (label, of_label) in zip(row, numbers.items(), strict=True):
            here = of_label[of_label[title] == name]
            back = behind[label] if behind else here[:0]
            back = back[back["network"].isin(here["network"])]
            draw = partial(drawing.draw_lines, axis, x="density", colour=hue, colours=own)
            draw(back, dash="rate", faint=True)
            draw(here, dash=dash, among=everything)
            _label(axis, here, label, linear=linear)
        row[0].set_title(name, loc="left")
    drawing.legend(figure, everything, colour=hue, own=own, dash=dash)
    return Plate(figure, everything.drop(columns=["network", "setting", "kind"]))


def _label(axis: Axes, here: pd.DataFrame, label: str, *, linear: bool) -> None:
    """The axes of a panel, which goes where there is nothing to show."""
    if here.empty:
        axis.remove()
        return
    axis.set_ylabel(label)
    drawing.density_axis(axis, here["density"], linear=linear)
    if "accuracy" in label:
        drawing.accuracy_axis(axis, here.loc[here["level"] == 0, "mean"].mean(), here)


def _named(found: pd.DataFrame, levels: pd.DataFrame, hue: str = "arm") -> pd.DataFrame:
    """With the network, what tells its experiments apart (`setting`), and, where an experiment has
    several arms or rates beside `hue`, which of them it is (`kind`)."""
    named = levels if "network" in levels else levels.assign(network=levels["experiment"])
    networks = named.drop_duplicates("experiment").set_index("experiment")["network"]
    network = found["experiment"].map(networks)
    pairs = zip(found["experiment"], network, strict=True)
    setting = [experiment.removeprefix(f"{of}, ") for experiment, of in pairs]
    others = [name for name in ("arm", "rate") if name != hue]
    lines = ["experiment", "arm"] if hue == "arm" else ["experiment"]
    kinds = levels.groupby(lines)[others].nunique().max()
    several = [name for name in others if kinds[name] > 1]
    kind = found[several].agg(", ".join, axis=1) if several else ""
    return found.assign(network=network, setting=setting, kind=kind)


def _colours(found: pd.DataFrame, hue: str) -> dict[str, drawing.Colour]:
    names = list(dict.fromkeys(found[hue]))
    known = hue == "arm" and set(names) <= {*ARMS, CONTINUED, RANDOM_REINIT}
    return drawing.arm_colours(names) if known else drawing.colours(names)
