"""Notes on a run that is valid, but may not be what its user means."""

from collections.abc import Iterator
from pathlib import Path

from lth.experiment.settings import TYPES, Budget, Pruning, Spec
from lth.runs.places import PROJECT
from lth.store.cleanup import is_store


def notes(spec: Spec) -> list[str]:
    """Return a sentence for each thing that the user of a run should know before it starts."""
    return [
        *_small_rates(spec.pruning),
        *_no_early_stop(spec.training),
        *_another_store(Path(spec.store)),
    ]


def _small_rates(pruning: Pruning) -> Iterator[str]:
    """Yield a note for each rate below 1 %, which is probably meant as a fraction."""
    if pruning.rates:
        listed = ",".join(f"{rate:g}" for rate in pruning.rates)
        rates = {f"pruning.rates=[{listed}]": min(pruning.rates)}
    else:
        rate = None if pruning.final_density else pruning.rate
        own = {f"{kind}_rate": getattr(pruning, f"{kind}_rate") for kind in TYPES}
        given = {"rate": rate, **own}
        rates = {f"pruning.{name}={value:g}": value for name, value in given.items() if value}
    for name, rate in rates.items():
        if rate < 1:
            yield (
                f"{name} removes {rate:g} % per level (percent, not a fraction; 20 removes a fifth)"
            )


def _no_early_stop(training: Budget) -> Iterator[str]:
    """Yield a note if no evaluation lies between the start and the end of a training."""
    if training.evaluate_every >= training.iterations > 0:
        yield (
            f"training.evaluate_every={training.evaluate_every} evaluates only at the start and "
            f"the end of {training.iterations} iterations, so no early stop can be found. Set it "
            "lower."
        )


def _another_store(store: Path) -> Iterator[str]:
    """Yield a note if a run in a folder outside the project starts a new store there, and the
    project has one: its trainings would be made again."""
    own = PROJECT / store
    if is_store(own) and not is_store(store) and own.resolve() != store.resolve():
        yield (
            f"this command starts a new store, {store.absolute()}, beside that of the project, "
            f"{own}. To use that one, add store={own}, and for the folders of runs hydra.run.dir="
            "FOLDER or hydra.sweep.dir=FOLDER; or start the command in the project."
        )
