"""The words of a command line, looked at before Hydra parses them: their size, and what of Hydra's they may set."""

import decimal
import math

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from aelab.check import short
from aelab.config import ConfigError

DEEPEST = 20
"""Brackets within one another, and parts of a key: each takes a few levels of Python's stack in Hydra."""
LONGEST = 10_000
"""Characters of a word."""
ITEMS = 1_000
"""Commas of a word: Hydra's parser takes a second for twice as many."""
HYDRAS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
"""What of Hydra's may be set: where results are put. Its launchers, sweepers and loggers are not used."""
OPEN, CLOSED = "[{(", "]})"


def name_of(override: str) -> str:
    """The name that an override is for."""
    return override.split("=")[0].lstrip("+~")


def parse(words: list[str]) -> list[Override]:
    """What Hydra makes of words, once they are known to be of a size that it can take."""
    for word in words:
        _bounded(word)
        if name_of(word)[:1] in ("", "@"):
            raise ConfigError(f"{short(word)}: not understood; write key=value")
    try:
        found = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        word = short(getattr(error, "override", None) or words[0])
        raise ConfigError(f"{word}: not understood; write key=value, and quote what a shell would change") from error
    for override in found:
        _hydras(override)
    return found


def depth(text: str) -> int:
    """How deep the brackets of a text are within one another, those in quotes left out."""
    deepest, now, quote, escaped = 0, 0, "", False
    for character in text:
        if escaped or character == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            now += (character in OPEN) - (character in CLOSED)
            deepest = max(deepest, now)
    return deepest


def _bounded(word: str) -> None:
    key, shown = name_of(word), short(word, 60)
    if len(word) > LONGEST or word.count(",") > ITEMS:
        raise ConfigError(f"{shown}: too long; at most {LONGEST:,} characters and {ITEMS:,} commas, or use a YAML file")
    if max(depth(word), key.count("."), key.count("/")) > DEEPEST or len(key) > 500:
        raise ConfigError(f"{shown}: nested too deep; at most {DEEPEST} levels")
    if any("\ud800" <= c <= "\udfff" for c in word):
        raise ConfigError(f"{ascii(shown)[1:-1]}: is no text in UTF-8; write it so")
    if unprintable := next((c for c in word if ord(c) < 32 and c not in "\n\t"), None):
        raise ConfigError(f"{ascii(shown)[1:-1]}: has the control character {unprintable!a}; leave it out")


def _hydras(override: Override) -> None:
    """That Hydra's own settings stay as they are, but for the folders of results."""
    key = override.get_key_element().lstrip("+~")
    if not (key == "hydra" or key.startswith(("hydra.", "hydra/", "hydra@"))):
        return
    value = override.value()
    if key not in HYDRAS or override.is_delete() or override.is_sweep_override():
        shown = short(override.input_line)
        raise ConfigError(f"{shown}: cannot be set; of Hydra's settings these can: {', '.join(HYDRAS)}")
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise ConfigError(f"{short(override.input_line)}: expected the path of a folder; give it as {key}=FOLDER")


def count(override: Override) -> int:
    """How many values a word stands for, without making them; `ConfigError` where it is none."""
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if not isinstance(sweep, RangeSweep):
        return 1
    start, stop, step = _numbers(override)
    found = math.ceil((stop - start) / step)
    if found < 1:
        raise ConfigError(f"{override.input_line}: an empty range; type the lowest first, as in range(8,33,8)")
    return found


def ends(override: Override) -> tuple[float, float]:
    """The first and the last value of a range: whole numbers where all that it is made of are whole."""
    start, _, step = _numbers(override)
    sweep = override.value()
    kind = int if all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step)) else float
    return kind(start), kind(start + (count(override) - 1) * step)


def first_of(override: Override) -> str:
    """The word with the first of the values that it stands for."""
    sweep = override.value()
    if not isinstance(sweep, ChoiceSweep | RangeSweep):
        return override.input_line
    first = ends(override)[0] if isinstance(sweep, RangeSweep) else next(override.sweep_string_iterator())
    return f"{override.input_line.partition('=')[0]}={first}"


def _numbers(override: Override) -> list[decimal.Decimal]:
    sweep = override.value()
    if not all(map(math.isfinite, (sweep.start, sweep.stop, sweep.step))) or sweep.step == 0:
        raise ConfigError(f"{override.input_line}: expected finite numbers and a step other than 0")
    return [decimal.Decimal(number) for number in (sweep.start, sweep.stop, sweep.step)]
