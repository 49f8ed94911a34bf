"""The words of the command line that work on a finished run: each takes key=value words and returns an exit code."""

import importlib
import os
from pathlib import Path

from aelab import check, compose, console, declared, past
from aelab.config import ConfigError


def options(argv: list[str], known: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """A command's own key=value words, and the rest."""
    own, rest = {}, []
    for word in argv:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word}: expected key=value; this command takes {', '.join(known)}")
        if key in known:
            own[key] = value
        else:
            rest.append(word)
    for key, help_ in known.items():
        if key not in own and not help_.startswith("["):
            raise ConfigError(f"{key}: missing; give it as {key}={help_}")
    return own, rest


def stored(argv: list[str], **more: str):
    """(own words, other words, run folder, its config with the other words in it) of a command on a finished run."""
    known = {"run": "DIR_OR_ID", **more, "allow": "[PACKAGES]", "output_dir": "[outputs]"}
    own, rest = options(argv, known)
    if "input" in own and not Path(own["input"]).exists():
        raise ConfigError(f"input={own['input']}: no such file")
    allow = [p for p in own.get("allow", "").strip("[]").split(",") if p]
    compose.trust(allow)
    folder = past.find(own["run"], own.get("output_dir", "outputs"), os.environ.get("MLFLOW_TRACKING_URI"))
    return own, rest, folder, past.config(folder, rest, allow)


def _of_kind(kind: str, cfg, run: str, command: str, plural: str = "s") -> None:
    if not any(own.endswith(kind) for own in declared.kinds("task", cfg.task._target_) or ()):
        raise ConfigError(
            f"run={run}: aelab {command} is for runs on {kind}{plural}, this one is of task={cfg.choices.task}"
        )


def _call(name: str, folder: Path, *args, module: str = "stored") -> int:
    with console.native_noise_to(Path(os.devnull)):  # the folder may be one to read only
        with console.leaving_at_once():
            heavy = importlib.import_module(f"aelab.{module}")
        getattr(heavy, name)(folder, *args)
    return 0


def _filled(own: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """The words of a command, and for those not given the default that stands in brackets beside the others' forms."""
    return {key: form.strip("[]") for key, form in known.items() if form.startswith("[")} | own


def _number(own: dict[str, str], key: str, kind: type = int) -> int | float:
    """A number of at least 0 among a command's own words."""
    try:
        value = kind(own[key])
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{key}={own[key]}: expected {'a whole number' if kind is int else 'a number'}, at least 0")
    return value


def evaluate(argv: list[str]) -> int:
    """Test a finished run again."""
    own, rest, folder, cfg = stored(argv, output="[FILE.json]")
    return _call("evaluate_run", folder, cfg, rest, Path(own["output"]) if "output" in own else None)


def predict(argv: list[str]) -> int:
    """Restore the user's own images."""
    own, _, folder, cfg = stored(argv, input="FILE", output="FILE")
    _of_kind("image", cfg, own["run"], "predict")
    return _call("predict", folder, cfg, Path(own["input"]), Path(own["output"]))


def score(argv: list[str]) -> int:
    """Score the user's own rows."""
    more = {"input": "FILE", "output": "FILE.csv", "rows": "[50000]", "repair": "[missing or drop]"}
    own, _, folder, cfg = stored(argv, **more)
    _of_kind("table", cfg, own["run"], "score")
    rows, repair = _number(_filled(own, {"rows": more["rows"]}), "rows"), own.get("repair")
    if not rows:
        raise ConfigError("rows=0: expected how many rows to score at a time")
    if repair not in (None, "missing", "drop"):
        raise ConfigError(f"repair={repair}: expected missing or drop")
    return _call("score", folder, cfg, Path(own["input"]), Path(own["output"]), rows, repair)


def recommend(argv: list[str]) -> int:
    """What a user does not know yet, best first."""
    more = {"user": "ID", "top": "[10]", "min_ratings": "[5]", "shrink": "[10]"}
    own, _, folder, cfg = stored(argv, **more)
    _of_kind("ratings", cfg, own["run"], "recommend", "")
    own = _filled(own, more)
    numbers = _number(own, "top"), _number(own, "min_ratings"), _number(own, "shrink", float)
    return _call("recommend", folder, cfg, own["user"], *numbers, module="lookup")


WRITES = {"prompt": "[TEXT]", "tokens": "[200]", "temperature": "[0.8]", "top_k": "[40]", "seed": "[0]"}
DRAWS = {"output": "[FILE]", "count": "[100]", "temperature": "[1]", "seed": "[0]"}


def generate(argv: list[str]) -> int:
    """Text that a language model writes, or images that a variational autoencoder draws."""
    known = WRITES | DRAWS
    own, rest, folder, cfg = stored(argv, **known)
    draws = "drawn image" in (declared.kinds("model", cfg.model._target_) or ())
    more = DRAWS if draws else WRITES
    if not draws:
        _of_kind("text", cfg, own["run"], "generate", "s and models that draw images")
    if wrong := [*rest, *(key for key in own if key in known and key not in more)]:
        raise ConfigError(check.unknown(wrong[0].partition("=")[0], wrong[0], ["run", *more]))
    full = _filled(own, more)
    temperature, seed = _number(full, "temperature", float), _number(full, "seed")
    if draws:
        if "output" not in own or not _number(full, "count"):
            raise ConfigError("expected output=FILE, a .npy, .npz or picture, and a count of at least 1")
        count = _number(full, "count")
        return _call("draw", folder, cfg, Path(own["output"]), count, temperature, seed, module="draw")
    tokens, top_k = (_number(full, key) for key in ("tokens", "top_k"))
    from aelab.generate import generate

    generate(folder, cfg, own.get("prompt"), tokens, temperature, top_k, seed)
    return 0


def compare(argv: list[str]) -> int:
    """Finished runs beside one another, best first."""
    from aelab.compare import compare

    return compare(argv)


def similar(argv: list[str]) -> int:
    """The items nearest to another."""
    name = next((w.partition("=")[2] for w in argv if w.startswith("similarity=")), None)
    more = {"item": "TITLE_OR_ID", "top": "[10]"}
    own, _, folder, cfg = stored([w for w in argv if not w.startswith("similarity=")], **more)
    _of_kind("ratings", cfg, own["run"], "similar", "")
    with compose.session():
        chosen = compose.compose(
            ["task=similarity", "model.run=.", f"similarity={name or 'cosine'}"], compose.folders([])
        )
    cfg.similarity, cfg.choices.similarity = chosen.similarity, chosen.choices.similarity
    return _call("similar", folder, cfg, own["item"], _number(_filled(own, more), "top"), module="lookup")


def sync(argv: list[str]) -> int:
    """Bring run folders to a store."""
    folders = [Path(w) for w in argv if "=" not in w or Path(w).is_dir()]
    known = {"to": "[URI]", "output_dir": "[outputs]"}
    own, rest = options([w for w in argv if Path(w) not in folders], known)
    if rest:
        raise ConfigError(check.unknown(rest[0], rest[0].partition("=")[0], known))
    if gone := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ConfigError(f"{gone[0]}: no such folder; this command takes run folders, {', '.join(known)}")
    home = own.get("output_dir", "outputs")
    from aelab.sync import sync

    folders = folders or [Path(home) / "runs", Path(home) / "sweeps"]
    return sync(folders, own.get("to") or os.environ.get("MLFLOW_TRACKING_URI"), home)
