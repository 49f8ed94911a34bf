"""Command lines: valid pieces from `conf/`, broken in all ways that people and scripts break them. Nothing trains."""

import os
import sys
from pathlib import Path
from random import Random

import yaml
from omegaconf import OmegaConf

from campaign import judge
from campaign.forks import Case, Defect, Ended

TRAINS = ("tensorflow", "keras", "mlflow")
"""What a line that is good imports next: there its child ends."""
HEAVY = ("sklearn", "pandas", "scipy")
"""What no config error needs."""
WORDS = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8"))
TEXTS = (*WORDS["texts"], "\udcff", "x" * 5000, "[" * 300 + "]" * 300, "{a:" * 300 + "1" + "}" * 300)
BOMB = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '1'] * 9)}]\n" for i in range(9))
YAMLS = (*WORDS["yamls"], BOMB, "a: " + "[" * 400 + "]" * 400 + "\n", "- " * 300 + "a\n", "x" * 200_000 + ": 1\n")


class Stop:
    """A finder of modules that ends the process where training would begin."""

    def find_spec(self, name, path=None, target=None):
        asked = sys._getframe(2).f_code.co_name  # importlib.util.find_spec only looks where a package is
        if name in TRAINS and asked == "_find_and_load_unlocked":
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(judge.STOPPED)
        return


class Campaign:
    """Lines by a small grammar; the words of `conf/` are read once."""

    def __init__(self, home: Path):
        from aelab import cli, compose

        self.main, self.groups, self.numbers = cli.main, {}, {}
        for group in compose.groups([compose.CONF]):
            self.groups[group] = list(compose.choices(group, [compose.CONF]))
        with compose.session():
            for task in self.groups["task"]:
                cfg = compose.compose(
                    [f"task={task}", *(["model.run=."] if task == "similarity" else [])], [compose.CONF]
                )
                self.numbers[task] = dict(flat("", OmegaConf.to_container(cfg)))
        assert not sys.modules.keys() & {*TRAINS, *HEAVY}, "imported before the first line"

    def environment(self, box: Path) -> dict[str, str]:
        return {**plain(), "AELAB_CACHE_DIR": str(box / "cache"), "HOME": str(box)}

    def make(self, rng: Random, box: Path) -> Case:
        """A line, and what it must not do; one of ten is wrong by a single word, and must end with exit code 2."""
        wrong = rng.random() < 0.1
        words = self.wrong(rng) if wrong else self.line(rng)
        if rng.random() < 0.12:
            words += hostile(rng, box)
        if rng.random() < 0.03:
            (box / "cwd" / "conf").mkdir()
            hostile(rng, box, "conf")
        words = [w.replace("SENTINEL", str(box / "guard" / "SENTINEL")) for w in words]
        before = judge.listing(box / "guard")

        def call() -> None:
            sys.meta_path.insert(0, Stop())
            import atexit

            atexit.register(lambda: (box / "heavy").write_text(" ".join(sys.modules.keys() & HEAVY)))
            sys.argv = ["aelab", *words]
            self.main()

        def judged(ended: Ended) -> list[Defect]:
            found = judge.command(ended, judge.LONGEST + 2 * sum(map(len, words))) + judge.guard_defects(
                before, box / "guard"
            )
            heavy = (box / "heavy").read_text() if (box / "heavy").exists() else ""
            if ended.code == 2 and heavy and "=" in words[0]:
                found.append(Defect(judge.OTHER, f"a config error imported {heavy}"))
            if wrong and not found and ended.code != 2:
                found.append(Defect(judge.OTHER, f"nonsense was accepted: {words[-1]} (exit code {ended.code})"))
            return found

        return Case("command lines", repr(words), call, judged)

    def line(self, rng: Random) -> list[str]:
        """The words of a line of some kind."""
        kind = rng.choices(("run", "cfg", "info", "sweep", "command", "noise"), (40, 10, 5, 22, 18, 5))[0]
        if kind == "command":
            return self.command(rng)
        words = [self.word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 5)))]
        if rng.random() < 0.5:
            words.insert(0, f"task={rng.choice(self.groups['task'])}")
        if kind == "cfg":
            words += ["--cfg", "job"]
        elif kind == "sweep":
            words = ["-m", *words, self.swept(rng)]
        elif kind in ("info", "noise"):
            words += [w for _ in range(1 if kind == "info" else 3) for w in rng.choice(WORDS["flags"]).split()]
            rng.shuffle(words)
        return words

    def key(self, rng: Random) -> str:
        """A key that some task has."""
        return rng.choice(list(self.numbers[rng.choice(list(self.numbers))]))

    def word(self, rng: Random) -> str:
        """One override, right or wrong."""
        how = rng.choices(("choice", "group", "value", "key", "sign", "setting", "noise"), (22, 10, 26, 10, 8, 20, 4))[
            0
        ]
        group, key, value = rng.choice(list(self.groups)), self.key(rng), rng.choice((*WORDS["numbers"], *TEXTS))
        if how == "choice":
            choice = rng.choice(self.groups[group])
            return f"{group}={choice if rng.random() < 0.8 else f'[{choice}]'}"
        if how == "group":
            return f"{group}={value if rng.random() < 0.6 else misspell(rng, rng.choice(self.groups[group]))}"
        if how in ("value", "key"):
            return f"{key if how == 'value' else misspell(rng, key)}={value}"
        if how == "sign":
            signs = "+{0}={1}", "++{0}={1}", "~{0}", "{0}", "{0}.x={1}", "/{0}=1", "{0}@x={1}"
            return rng.choice(signs).format(rng.choice((key, group)), value)
        if how == "noise":
            return rng.choice(TEXTS) + rng.choice(("=", "", "==")) + value
        return rng.choice(WORDS["settings"])

    def swept(self, rng: Random) -> str:
        """An override with several values."""
        key = rng.choice((self.key(rng), self.key(rng), "seed", "model.width", rng.choice(list(self.groups))))
        if key in self.groups and rng.random() < 0.5:
            return f"{key}={','.join(rng.choices(self.groups[key], k=rng.choice((2, 3, 8))))}"
        return f"{key}={rng.choice(WORDS['sweeps'])}"

    def command(self, rng: Random) -> list[str]:
        """A command of its own with options that are wrong, missing, or for others; there is no run for any."""
        from aelab.cli import COMMANDS

        words = [rng.choice([name for name in COMMANDS if name != "ui"])]
        for _ in range(rng.choice((0, 1, 2, 4))):
            value, option = rng.choice((*TEXTS, *WORDS["numbers"], ".", "nowhere", "/")), rng.choice(WORDS["options"])
            words.append(rng.choice((f"{option}={value}", f"{option}={value}", option, self.word(rng), value)))
        return words + (rng.choice(WORDS["flags"]).split() if rng.random() < 0.2 else [])

    def wrong(self, rng: Random) -> list[str]:
        """A line that is right but for its last word: a key that is not there, or no number where one stands."""
        task = rng.choice([t for t in self.numbers if t != "similarity"])
        keys = self.numbers[task]
        if rng.random() < 0.4:
            key = rng.choice([k for k in keys if not k.startswith("choices")])
            return [f"task={task}", f"{misspell(rng, key)}={rng.choice(('1', 'x', '[1]'))}"]
        numbers = [
            k
            for k, v in keys.items()
            if isinstance(v, int | float) and not isinstance(v, bool) and not k.startswith("choices")
            if k not in ("dataset.normal", "dataset.positive")  # labels, which may be texts
        ]
        return [
            f"task={task}",
            f"{rng.choice(numbers)}={rng.choice(('abc', 'nan', 'inf', '-inf', '[1]', '{a:1}', 'true', '1e999'))}",
        ]


def hostile(rng: Random, box: Path, folder: str = "theirs") -> list[str]:
    """The words for a config folder of the user's in which a file, or the folder itself, is not as it should be."""
    group = rng.choice(
        ("model", "dataset", "task", "experiment", "loss", "corruption", "launcher", "optimizer", "hydra")
    )
    home = box / "cwd" / folder
    (home / group).mkdir(parents=True, exist_ok=True)
    text = rng.choice(YAMLS).replace("SENTINEL", str(box / "guard" / "SENTINEL"))
    file = home / group / rng.choice(("mine.yaml",) * 5 + ("config.yaml", "a b.yaml", "ü.yaml"))
    how = rng.choice(("text",) * 8 + ("folder", "latin", "loop", "top"))
    if how == "folder":
        file.mkdir()
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "top":
        (home / "config.yaml").write_text(text, errors="replace")
    else:
        file.write_bytes(
            text.encode("latin-1", "replace") + b"\xe9: 1\n" if how == "latin" else text.encode(errors="replace")
        )
    options = [] if folder == "conf" else rng.choice((["--config-dir", folder], [f"--config-dir={folder}"]))
    return [*options, *([f"{group}={file.stem}"] if rng.random() < 0.8 else [])]


def misspell(rng: Random, name: str) -> str:
    """A name with a letter too many, wrong or missing; never one that is there."""
    at = rng.randrange(len(name))
    return name[:at] + rng.choice(("qz", "ü", "q", "zz")) + name[at + 1 :]


def flat(prefix: str, node: dict):
    """(dotted key, value) of each value, and of each section."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from flat(f"{prefix}{key}.", value)


def plain() -> dict[str, str]:
    """The environment of somebody without any of our settings."""
    ours = ("AELAB_", "MLFLOW_", "TF_", "KERAS_", "HYDRA_", "PYTHONPATH")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {**kept, "TERM": "dumb", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
