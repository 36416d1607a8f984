"""Hydra plugins: launchers, which start the runs of a sweep, the sweeper, and the console.

Hydra imports every module in this folder at every start: slow imports belong inside functions.
"""

from uuid import uuid4

from omegaconf import OmegaConf

OmegaConf.register_new_resolver("unique", lambda: uuid4().hex[:8], use_cache=True, replace=True)
"""`${unique:}` in conf/config.yaml: runs started in one second have different folders."""
