"""hydra/sweeper=grid: Hydra's own sweeper with a faster check that every run composes."""

from collections.abc import Sequence
from copy import deepcopy

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf


class GridSweeper(BasicSweeper):
    """The grid of all swept settings. A sweep with an invalid run is refused as a whole, before
    anything starts. Hydra's own check reads the YAMLs of every run, a tenth of a second each."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raise LotteryError with the reasons why runs are refused, each reason once."""
        from lth.errors import LotteryError
        from lth.experiment.config import from_config

        assert self.hydra_context is not None
        assert self.config is not None
        compose = Composer(self.hydra_context.config_loader, self.config)
        reasons: dict[str, str] = {}
        for overrides in batch:
            try:
                from_config(compose(overrides))
            except LotteryError as error:
                reasons.setdefault(str(error), " ".join(filter_overrides(overrides)))
        if reasons:
            raise LotteryError(
                "\n".join(f"{reason} ({run})" for reason, run in reasons.items())
                + "\nNo run of this sweep was started."
            )


class Composer:
    """Compose the configuration of any run of a sweep, without the `hydra` node. The YAMLs are read
    once for each choice of groups; single values are then set by the function that Hydra uses."""

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader, self._config = loader, config
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration for these overrides. Raises Hydra's errors for invalid ones."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [o for o in parsed if not self._loader.repository.group_exists(o.key_or_group)]
        groups = tuple(o.input_line or "" for o in parsed if o not in values)
        if groups not in self._composed:
            whole = self._loader.load_sweep_config(self._config, list(groups))
            ours = sorted({*map(str, whole)} - {"hydra"})
            self._composed[groups] = OmegaConf.masked_copy(whole, ours)
        composed = deepcopy(self._composed[groups])
        ours_only = [value for value in values if not value.is_hydra_override()]
        ConfigLoaderImpl._apply_overrides_to_config(ours_only, composed)
        return composed
