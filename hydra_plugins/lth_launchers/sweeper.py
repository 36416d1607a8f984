"""hydra/sweeper=grid: Hydra's own sweeper with a faster check that every run composes."""

import sys
from collections.abc import Sequence
from copy import deepcopy
from functools import cache

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.lth_launchers.mistakes import explained, meant_instead


class GridSweeper(BasicSweeper):
    """The grid of all swept settings. A sweep with an invalid run is refused as a whole, before
    anything starts. Hydra's own check reads the YAMLs of every run, a tenth of a second each."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Print the notes on the runs, each once. Raises LotteryError with the reasons why runs are
        refused, each reason once."""
        from lth.errors import LotteryError
        from lth.experiment.config import from_config
        from lth.runs.notes import notes

        assert self.hydra_context is not None
        assert self.config is not None
        compose = Composer(self.hydra_context.config_loader, self.config)
        reasons: dict[str, str] = {}
        noted: dict[str, None] = {}
        for overrides in batch:
            try:
                noted |= dict.fromkeys(notes(from_config(compose(overrides))))
            except LotteryError as error:
                reasons.setdefault(str(error), f" ({' '.join(filter_overrides(overrides))})")
            except HydraException as error:
                reasons[explained(error, overrides)] = ""
        if reasons:
            lines = self._instead() or [f"{reason}{run}" for reason, run in reasons.items()]
            raise LotteryError("\n".join([*lines, "No run of this sweep was started."]))
        for note in noted:
            print(f"note: {note}", file=sys.stderr)

    def _instead(self) -> list[str]:
        """Return what to type instead of sweeps over the values of one list. Options of a group are
        no list."""
        assert self.config is not None
        assert self.hydra_context is not None
        options = self.hydra_context.config_loader.get_group_options
        task = [str(word) for word in self.config.hydra.overrides.task]
        parsed = OverridesParser.create().parse_overrides(task)
        swept = [o for o in parsed if o.is_sweep_override()]
        single = [word for word in task if word not in [o.input_line for o in swept]]
        lists = [str(o.input_line) for o in swept if not options(o.key_or_group)]
        return [line for word in lists if (line := meant_instead(word, single))]


class Composer:
    """Compose the configuration of any run of a sweep, without the `hydra` node. The YAMLs are read
    once for each choice of groups and of added and deleted settings; values are then changed."""

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader, self._config = loader, config
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._is_group = cache(lambda name: bool(loader.get_group_options(name)))

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration for these overrides. Raises Hydra's errors for invalid ones."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        changes = [override for override in parsed if self._is_change(override)]
        composed = self._read(tuple(o.input_line or "" for o in parsed if o not in changes))
        try:
            for change in changes:
                if not change.is_hydra_override():
                    OmegaConf.update(composed, change.key_or_group, change.value())
        except OmegaConfBaseException:
            self._loader.load_sweep_config(self._config, list(overrides))  # its error says more
            raise
        return composed

    def _is_change(self, override: Override) -> bool:
        """Return whether an override changes the value of a setting that is there."""
        plain = override.type is OverrideType.CHANGE and override.package is None
        return plain and not self._is_group(override.key_or_group)

    def _read(self, overrides: tuple[str, ...]) -> DictConfig:
        if overrides not in self._composed:
            whole = self._loader.load_sweep_config(self._config, list(overrides))
            ours = sorted({*map(str, whole)} - {"hydra"})
            self._composed[overrides] = OmegaConf.masked_copy(whole, ours)
            OmegaConf.set_struct(self._composed[overrides], True)  # which the copy is not
        return deepcopy(self._composed[overrides])
