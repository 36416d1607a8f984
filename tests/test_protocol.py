"""Runs that follow a preset of the paper: which claims they test, and how they depart from it."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.claims import judged
from analysis.collect import collect
from analysis.paper import conditions, paper_claims
from analysis.protocol import RULES, has_preset, protocol
from analysis.verdicts import Verdict
from lth.experiment.names import arm_name, rate_name
from lth.experiment.recipe import identity
from tests.conftest import ROOT, Composer
from tests.test_analysis import analysis, write_run

Writer = Callable[..., None]


@pytest.fixture
def write(composed: Composer, tmp_path: Path) -> Writer:
    """Write the run that some overrides describe, with made-up measurements."""

    def write_as(name: str, *overrides: str, shift: float = 0.0) -> None:
        spec = composed(*overrides)
        groups = dict(word.split("=", 1) for word in overrides if "." not in word.split("=")[0])
        preset = groups.get("preset")
        model = "lenet_300_100" if preset in (None, "lenet") else str(preset).partition("_")[0]
        data = groups.get("dataset", "mnist" if model == "lenet_300_100" else "cifar10")
        write_run(
            tmp_path / name, seed=spec.seed, rate=20.0, shift=shift, settings=identity(spec),
            arm=arm_name(spec), label=rate_name(spec.pruning), preset=preset,
            groups={"model": model, "dataset": data},
        )  # fmt: skip

    return write_as


@pytest.fixture
def tested(tmp_path: Path) -> Callable[[], list[Verdict]]:
    return lambda: list(judged(collect([tmp_path])))


Tested = Callable[[], list[Verdict]]


def ids(verdicts: list[Verdict]) -> set[str]:
    return {found.claim.id for found in verdicts}


def claims_of(preset: str, where: str = "") -> set[str]:
    return {claim.id for claim in paper_claims() if (claim.preset, claim.where) == (preset, where)}


SIZES, ANY_SCOPE = "model.options.widths!=[300,100]", "pruning.scope=global|layerwise"
SGD = "optimizer.name=sgd optimizer.options.lr=0.4|0.8 optimizer.options.momentum=0|null"


@pytest.mark.parametrize(("overrides", "claims"), [
    (("preset=lenet",), claims_of("lenet")),
    (("preset=lenet", "training.iterations=5000", "training.evaluate_every=50", "model.dropout=0.5",
      "dataset.preprocessing=unit", "optimizer.lr=0.001", "model.init_scale=2"),
     claims_of("lenet")),
    (("preset=lenet", "pruning.mode=one_shot", "pruning.rates=[50,90]"), claims_of("lenet")),
    (("preset=lenet", "model.widths=[30,10]"), claims_of("lenet", SIZES)),
    (("preset=lenet", "optimizer=sgd", "optimizer.lr=0.4"), claims_of("lenet", SGD)),
    (("preset=lenet", "optimizer=sgd", "optimizer.lr=0.2"), set()),
    (("preset=lenet", "optimizer=momentum", "optimizer.lr=0.4"), set()),
    (("preset=lenet", "optimizer=adamw"), set()),
    (("preset=lenet", "pruning.rate=50"), set()),
    (("preset=lenet", "pruning.rates=[50,50]"), set()),
    (("preset=lenet", "pruning.output_rate=20"), set()),
    (("preset=lenet", "pruning.scope=global"), set()),
    (("preset=lenet", "dataset=kmnist"), set()),
    (("preset=lenet", "smoke=true"), set()),
    ((), set()),
    (("preset=conv2",), claims_of("conv2")),
    (("preset=conv2", "dataset=cifar10_jpeg"), claims_of("conv2")),
    (("preset=conv2", "dataset=cifar100"), set()),
    (("preset=conv2", "model.dropout=0.5"), set()),
    (("preset=conv2_dropout",), claims_of("conv2_dropout")),
    (("preset=conv2_dropout", "model.dropout=0.4"), claims_of("conv2_dropout")),
    (("preset=conv2_dropout", "model.dropout=0"), set()),
    (("preset=vgg19",), claims_of("vgg19") | claims_of("vgg19*", ANY_SCOPE)),
    (("preset=vgg19", "optimizer.lr=0.01"), set()),
    (("preset=vgg19_warmup", "optimizer.schedule.warmup=5000"),
     claims_of("vgg19_warmup") | claims_of("vgg19*", ANY_SCOPE)),
    (("preset=vgg19_warmup", "optimizer.schedule.warmup=0"), set()),
    (("preset=vgg19_warmup", "pruning.scope=layerwise"),
     claims_of("vgg19_warmup", "pruning.scope=layerwise") | claims_of("vgg19*", ANY_SCOPE)),
    (("preset=resnet18_low",), claims_of("resnet18_low") | claims_of("resnet18*", ANY_SCOPE)),
])  # fmt: skip
def test_a_run_tests_the_claims_that_its_settings_allow(
    write: Writer, tested: Tested, overrides: tuple[str, ...], claims: set[str]
) -> None:
    write("0", *overrides)
    assert ids(tested()) == claims


@pytest.mark.parametrize(("overrides", "departures"), [
    ((), ""),
    (("training.iterations=5000",), "training.iterations 5000 for 50000"),
    (("optimizer.lr=0.1", "dataset.preprocessing=raw"),
     "dataset.preprocessing raw for unit, optimizer.options.lr 0.1 for 0.0012"),
    (("dataset.flip=true", "optimizer.schedule.kind=cosine"),
     "dataset.flip True for False, optimizer.schedule.kind cosine for constant"),
    (("seed=1", "split_seed=1", "device=cpu", "pruning.levels=2"), ""),
    (("seed=3", "split_seed=1"), "split_seed 1 for that of each seed"),
    (("rewind=late", "rewind.iteration=100"), ""),
    (("model.widths=[30,10]", "training.batch_size=100"), "training.batch_size 100 for 60"),
    (("optimizer=sgd", "optimizer.lr=0.8", "training.iterations=100"),
     "training.iterations 100 for 50000"),
])  # fmt: skip
def test_departures_from_the_preset_stand_in_the_title(
    write: Writer, tested: Tested, overrides: tuple[str, ...], departures: str
) -> None:
    write("0", "preset=lenet", *overrides)
    named = f" (departs from the preset: {departures})" if departures else ""
    title = f"lenet_300_100 on mnist, 20 % a level{named}"
    assert {found.experiment for found in tested()} == {title}


def test_a_copy_of_the_dataset_is_no_departure(write: Writer, tested: Tested) -> None:
    write("0", "preset=conv4", "dataset=cifar10_jpeg")
    assert {found.experiment for found in tested()} == {
        "conv4 on cifar10_jpeg, 20 %, conv 10 % a level"
    }


def test_only_a_copy_of_the_presets_own_dataset_counts(write: Writer, tested: Tested) -> None:
    write("0", "preset=lenet", "dataset=cifar10_jpeg")
    assert tested() == []


def test_an_option_added_later_is_no_departure_of_older_runs(
    write: Writer, tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("0", "preset=lenet")
    later = protocol("lenet") | {"model.options.skip": False, "dataset.jitter": 0}
    monkeypatch.setattr("analysis.protocol.protocol", lambda *_: later)
    assert {found.experiment for found in tested()} == {"lenet_300_100 on mnist, 20 % a level"}
    on = protocol("lenet") | {"model.options.skip": True}
    monkeypatch.setattr("analysis.protocol.protocol", lambda *_: on)
    assert tested() == []


def test_arms_and_lists_of_rates_do_not_mix(write: Writer, tested: Tested) -> None:
    for seed in range(3):
        words = ("preset=lenet", f"seed={seed}", "pruning.mode=one_shot")
        write(f"{seed}", *words)
        write(f"grid{seed}", *words, "pruning.rates=[5,10]", shift=1)
    found = [v for v in tested() if v.claim.id == "lenet-oneshot-acc-hi"]
    assert len({verdict.experiment for verdict in found}) == 2
    assert "5, 10 % a level" in found[0].experiment  # rates are in numerical order


def test_a_list_of_rates_counts_only_where_each_prunes_the_dense_network(
    write: Writer, tested: Tested
) -> None:
    write("0", "preset=lenet", "pruning.rates=[50,50]")
    assert tested() == []
    write("1", "preset=lenet", "pruning.rates=[50,50]", "pruning.mode=one_shot")
    assert {found.experiment for found in tested()} == {"lenet_300_100 on mnist, 50, 50 % a level"}


def test_other_presets_to_compare_with_are_those_without_disqualifying_departures(
    write: Writer, tested: Tested
) -> None:
    for seed in range(3):
        write(f"d{seed}", "preset=conv2_dropout", f"seed={seed}", shift=0.04)
        write(f"s{seed}", "preset=conv2", f"seed={seed}", "optimizer=sgd")
    (found,) = [v for v in tested() if v.claim.id == "Conv-2-drop-init"]
    assert found.why == "no runs of conv2 to compare with"
    for seed in range(3):
        write(f"c{seed}", "preset=conv2", f"seed={seed}")
    (found,) = [v for v in tested() if v.claim.id == "Conv-2-drop-init"]
    assert found.measured == pytest.approx(4.0)


def test_a_run_repeated_without_the_preset_still_follows_it(write: Writer, tested: Tested) -> None:
    write("0", "preset=lenet", "model.widths=[300,100]")
    before = ids(tested())
    write("again", "model=lenet_300_100", "dataset=mnist", "training.iterations=50000",
          "training.evaluate_every=100", "pruning.levels=28")  # fmt: skip
    assert before == ids(tested()) == claims_of("lenet")


def test_numbers_are_those_of_the_runs(write: Writer, tested: Tested) -> None:
    for seed in range(3):
        write(f"{seed}", "preset=lenet", f"seed={seed}")
        write(f"other{seed}", "preset=lenet", f"seed={seed}", "pruning.rate=50", shift=1)
    verdicts = {found.claim.id: found for found in tested()}
    assert verdicts.keys() == claims_of("lenet")
    assert verdicts["struct-total-LeNet-300-100"].measured == 1000
    assert math.isnan(verdicts["lenet-reinit-acc"].measured)


def test_a_run_with_its_own_split_and_that_of_others_counts_in_both_experiments(
    write: Writer, tested: Tested
) -> None:
    for seed in range(3):
        write(f"own{seed}", "preset=lenet", f"seed={seed}")
        write(f"shared{seed}", "preset=lenet", f"seed={seed}", "split_seed=0")
    counts = {(v.experiment, v.n) for v in tested() if v.claim.id == "struct-total-LeNet-300-100"}
    (_, own), (title, shared) = sorted(counts, key=lambda count: "departs" in count[0])
    assert (own, shared) == (3, 3)
    assert title.endswith("(departs from the preset: split_seed 0 for that of each seed)")


def test_every_claim_is_about_a_preset_and_settings_that_exist() -> None:
    presets = {file.stem for file in (ROOT / "conf/preset").glob("*.yaml")}
    for claim in paper_claims():
        assert any(claim.matches(preset) for preset in presets), claim
        known = {name for p in presets if claim.matches(p) for name in protocol(p)}
        assert claim.variant <= known | {"optimizer.options.momentum"}, claim
        if claim.name == "dense_gain":
            assert has_preset(claim.argument)
    assert not has_preset("mine")


def test_conditions_compare_json_values() -> None:
    (one,) = conditions("a.b=0.4|x|null")
    assert [one.holds(own) for own in ({"a.b": 0.4}, {"a.b": "x"}, {}, {"a.b": 0.5})] == [
        True, True, True, False,
    ]  # fmt: skip
    (other,) = conditions("a.b!=[300,100]")
    assert [other.holds({"a.b": value}) for value in ([300, 100], [30, 10])] == [False, True]
    assert list(conditions("")) == []


def test_every_effect_has_a_reason_and_the_last_rule_matches_all() -> None:
    assert all(rule.reason for rule in RULES)
    assert (RULES[-1].settings, RULES[-1].presets) == ("*", "*")


def test_the_command_prints_and_writes(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for seed in range(3):
        write_run(tmp_path / f"{seed}", seed=seed)
    out = tmp_path / "claims.csv"
    assert analysis(monkeypatch, "claims", tmp_path, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "no claims to test" in printed
    assert "smallest winning density" in printed
    assert analysis(monkeypatch, "claims", tmp_path / "nowhere") == 1
    write("followers", "preset=lenet")
    assert analysis(monkeypatch, "claims", tmp_path, "--out", out) == 0
    assert "prunable weights" in capsys.readouterr().out
    assert "struct-total-LeNet-300-100" in out.read_text()
