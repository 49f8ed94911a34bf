"""How much the interpolations of a config come to, `${a}${a}` of `${b}${b}` and so on: counted, none resolved."""

import re

from aelab.config import ConfigError

MOST = 10_000
"""Values that are looked up for one: more is a chain in which each value doubles another."""
REFERENCE = re.compile(r"\$\{([^${}:]+)\}")


def bounded(cfg: dict) -> None:
    """Refuse a config, as a plain dict with nothing resolved, in which one value would take too many others."""
    known: dict[tuple[str, ...], int] = {}
    for path, value in _leaves(cfg, ()):
        if "${" in value and _cost(path, cfg, known) > MOST:
            raise ConfigError(f"{'.'.join(path)}: stands for too many other values; write it with fewer ${{...}}")


def _leaves(node, path: tuple[str, ...]):
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*path, str(key)))


def _find(cfg, path: tuple[str, ...]):
    node = cfg
    for key in path:
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


def _cost(path: tuple[str, ...], cfg: dict, known: dict[tuple[str, ...], int]) -> int:
    """How many values are looked up for what stands at a path; a circle counts as nothing, OmegaConf names it."""
    if path not in known:
        known[path] = 0
        total = 1
        for place, text in _leaves(_find(cfg, path), path):
            for name in REFERENCE.findall(text):
                total += _cost(_absolute(name, place), cfg, known)
        known[path] = min(total, MOST + 1)
    return known[path]


def _absolute(name: str, place: tuple[str, ...]) -> tuple[str, ...]:
    """The path that a reference names: `.x` is beside the place where it stands, `..x` beside its parent."""
    dots = len(name) - len(name.lstrip("."))
    base = place[: max(len(place) - dots, 0)] if dots else ()
    return (*base, *(part for part in re.split(r"[.\[\]]", name[dots:]) if part))
