"""Call what a checked config names: see `check`, which must have seen it before."""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf

from aelab import check


def located(target: str) -> Callable:
    """The function or class of a `_target_` that was checked: its module is imported."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def bound(node: Mapping, *without: str) -> functools.partial:
    """The function of a checked `_target_` node, its knobs filled in; `without` are keys that are no knobs.

    Its values are handed over as they are: what has a `_target_` in them is built by nobody but who asks for it.
    """
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    plain = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in plain.items()}
    knobs = {k: v for k, v in plain.items() if k not in (*check.HYDRA_KEYS, *without)}
    return functools.partial(located(plain["_target_"]), **knobs)


def build(node: Mapping, *data, **more) -> Any:
    """Call a checked `_target_` with data in front and its knobs from the config, as plain Python values."""
    return bound(node)(*data, **more)
