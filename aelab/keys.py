"""What is wrong with a sweep over `glob(...)`, found before its jobs are composed: keys that no choice has, misfits."""

import dataclasses
import re
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from aelab import check as checks
from aelab import config, declared, registry
from aelab.config import ConfigError
from aelab.explain import check_kind


def check(words: list[Override], how: DictConfig, dirs: list[Path]) -> None:
    """That each dotted key is one of the settings, or of some choice of its group; `how` is the first job's config."""
    for o in words:
        root, _, rest = o.key_or_group.partition(".")
        if rest and not o.is_delete() and not o.is_add() and not o.is_force_add():
            known = _known(root, how, dirs)
            name = rest.partition(".")[0]
            if known is not None and name not in known:
                raise ConfigError(checks.unknown(o.key_or_group, name, known - checks.HYDRA_KEYS))
            if known is None and root not in (tops := _tops(how, dirs)):
                raise ConfigError(checks.unknown(o.key_or_group, root, tops))


def _tops(how: DictConfig, dirs: list[Path]) -> set[str]:
    """The names that may stand at the top of a config, with those that some choice of a group adds for itself."""
    own = [names for group in registry.groups(dirs) for names in registry.helpers(group, dirs).values()]
    return set(map(str, how)).union(registry.groups(dirs), *own)


def _known(root: str, how: DictConfig, dirs: list[Path]) -> set[str] | None:
    """The names that may stand below a name at the top of a config; None where that is not to be told."""
    fields = {f.name: f.type for f in dataclasses.fields(config.Run)}
    if root not in registry.groups(dirs):
        kind = fields.get(root)
        return {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    names = set(checks.HYDRA_KEYS)
    names |= set(checks.GROUP_KEYS.get(root, ())) | set(how.get(root) or ())
    for name, file in registry.choices(root, dirs).items():
        found = declared.signature(registry.target(file) or "")
        names |= {name} if root in checks.SEVERAL else set(found.knobs if found else ())
        names |= set(
            re.findall(r"^ *([A-Za-z_]\w*):", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        )
    return names


def fit(words: list[str], how: DictConfig, dirs: list[Path]) -> None:
    """That the choices of a job are for the task that it names, or for that of the first job."""
    typed = dict(word.partition("=")[::2] for word in words)
    if "experiment" in typed or "debug" in typed:
        return  # which may choose for themselves
    tasks = registry.choices("task", dirs)
    here = next((n for n, file in tasks.items() if registry.target(file) == how.task._target_), None)
    task = typed.get("task", here)
    wanted = declared.kinds("task", registry.target(tasks[task]) or "") if task in tasks else None
    for group in (*checks.ONE, *checks.SEVERAL, *checks.NEEDED):
        file = registry.choices(group, dirs).get(typed.get(group, ""))
        if wanted and file and "???" not in file.read_text(encoding="utf-8", errors="replace"):
            check_kind(group, file.stem, registry.target(file) or "", task, wanted, dirs)
