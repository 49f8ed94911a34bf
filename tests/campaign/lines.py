"""Command lines: valid pieces from `conf/`, broken in all ways that a person or a script breaks them. Nothing trains."""

import os
import sys
from pathlib import Path
from random import Random

from omegaconf import OmegaConf

from campaign import judge
from campaign.forks import Case, Defect, Ended

TRAINS = ("tensorflow", "keras", "mlflow")
"""What a line that is good imports next: there its child ends."""
HEAVY = ("sklearn", "pandas", "scipy")
"""What no config error needs."""
NUMBERS = ["0", "1", "-1", "3", "1.5", "1e3", "1e-9", "1e308", "1e999", "nan", "inf", "-inf", ".nan", ".inf", "18446744073709551616", "-9223372036854775809", "0x10", "1_000"]
TEXTS = (
    "", "x", "true", "null", "None", "yes", "ü", "日本", "😀", "a b", "'a b'", '"x"', "'", '"', "''", "\\", "\\'", "a,b", "[", "]", "{", "}",
    "[]", "{}", "[1,2]", "[psnr,psnr]", "{a:1}", "{a: {b: {c: 1}}}", "[[[[1]]]]", "${seed}", "${nothing}", "${model}", "${oc.env:HOME}",
    "${oc.env:NOWHERE}", "${now:%Y}", "${hydra:runtime.cwd}", "${", "$", "???", "*", "~", "-", "--", "a=b", "=", "a:b", "%41", "?", "/",
    "..", "../../x", "/dev/null/x", "\udcff", "\x1b[31m", "\t", "\n", "x" * 5000, "[" * 300 + "]" * 300, "{a:" * 300 + "1" + "}" * 300,
    "${seed}${seed}", "!!python/name:os.system", "os.system", "aelab.cli.dispatch", "sum(1)", "int(x)", "str(1)", "extend_list(1)",
)  # fmt: skip
SWEEPS = (
    "1,2", "1,2,x", "range(1,4)", "range(8,8)", "range(0,1,1e-9)", "range(1,1e12)", "range(3,1)", "range(1,4,0)", "choice(1,2)", "choice()",
    "glob(*)", "glob(a*)", "glob([*],exclude=*)", "interval(0,1)", "interval(1,0)", "shuffle(1,2)", "sort(3,1)", "tag(log,interval(1,9))",
    ",", "1,,2", "a,b,c", "null,1", "[1],[2]", "{a:1},{a:2}", "'1,2'", "nan,inf", "range(nan,1)", "choice(choice(1))",
)  # fmt: skip
HYDRA = (
    "hydra.launcher=null", "hydra.sweeper.params={a:1}", "hydra.sweeper=null", "hydra.sweep.subdir=a", "hydra.sweep.subdir=..", "hydra.run.dir=.",
    "hydra.run.dir=", "hydra.job.chdir=true", "hydra.verbose=true", "hydra.mode=MULTIRUN", "hydra.mode=x", "hydra/launcher=joblib",
    "hydra/sweeper=ax", "hydra.searchpath=[file:///nowhere]", "hydra.searchpath=3", "hydra.output_subdir=x", "hydra.job.num=7", "hydra=null",
    "hydra.job=null", "hydra.run=3", "hydra.sweep.dir=${x}", "+hydra.x=1", "~hydra.job", "hydra/job_logging=default", "hydra.callbacks.x=1",
)  # fmt: skip
SETTINGS = (
    "sweep.seeds=100000", "sweep.seeds=3", "sweep.zip=[seed]", "sweep.zip=[model.width,seed]", "sweep.table=nowhere.csv", "sweep.table=.",
    "sweep.over={seed: '1,2'}", "sweep.over=3", "sweep.over={a: 1}", "sweep.plan=true", "sweep.retry=failed", "search=tpe", "search=random",
    "search.goal=test/psnr", "search.trials=0", "fit.monitor=test/psnr", "fit.monitor=", "fit.monitor=x", "dataset.validation=1", "dataset.size=[20000,20000]",
    "tracking.experiment=a/b", "tracking.experiment=", "output_dir=", "output_dir=/dev/null/x", "output_dir=a?b", "+model._convert_=zz",
    "model._target_=os.system", "model._target_=aelab.cli.main", "+model._recursive_=3", "+x._target_=os.system", "allow=[os]", "allow=3",
    "metric=[psnr,psnr]", "corruption=[1]", "corruption=[]", "corruption.level=1", "seed=18446744073709551616", "path=x", "label=y", "~model",
    "~seed", "~fit", "profile=true", "data_dir=/nowhere", "tracking.uri=http://a:b@c", "tracking.uri=x", "choices=1", "dataset.fallback=x",
)  # fmt: skip
OPTIONS = ["run", "input", "output", "rows", "repair", "user", "item", "top", "min_ratings", "shrink", "prompt", "tokens", "temperature", "top_k", "seed", "count", "to", "output_dir", "allow"]
OPTIONS += ["similarity", "mask", "port", "host"]
FLAGS = (
    ["--cfg", "job"], ["--cfg=job"], ["--cfg"], ["-c", "job"], ["--cfg", "x"], ["--info"], ["--info", "config"], ["--info=plugins"],
    ["-i", "defaults"], ["--info", "x"], ["-m"], ["--multirun"], ["--run"], ["--resolve"], ["-p", "model"], ["--package", "x"], ["--help"],
    ["-h"], ["help"], ["--version"], ["--hydra-help"], ["--shell-completion", "install=bash"], ["-sc", "x"], ["--config-name", "x"], ["-cn"],
    ["--config-path", "x"], ["--config-dir"], ["--config-dir", "nowhere"], ["--config-dir="], ["-cd", "guard.txt"], ["--experimental-rerun", "x"],
    ["-x"], ["--"], ["-"],
)  # fmt: skip
YAMLS = (
    "", "- a\n- b\n", "3\n", "a: [1\n", "a: b: c\n", "\t- x\n", "? [a]\n: 1\n", "1: 2\n", "null: 1\n", "true: 1\n", "!!set {a, b}\n",
    "a: !!python/object/apply:os.system ['touch SENTINEL']\n", "_target_: os.system\ncommand: touch SENTINEL\n", "_target_: 3\n", "_target_: null\n",
    "_target_: aelab.cli.dispatch\nargv: [--help]\n", "a: &a [*a]\n", "a: ${a}\n", "defaults: [x]\n", "defaults: [mine]\n", "defaults: 3\n",
    "defaults:\n  - override /model: nothing\n", "# @package _global_\nmodel: 3\n", "# @package _global_\nseed: x\n", "# @package x y\na: 1\n",
    "defaults: [_self_, _self_]\n", "\x00\n", "\ufeffa: 1\n", "a: 1\na: 2\n", "a: !!binary x\n", "a: 2001-01-01\n", "a: .nan\n", "%YAML 9.9\n---\na: 1\n",
    "---\na: 1\n---\nb: 2\n", "a: &x [" + "1," * 9 + "]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '*x'] * 9)}]\n" for i in range(9)),
    "a: " + "[" * 400 + "]" * 400 + "\n", "defaults:\n  - mine@a.b.c: mine\n", "<<: 3\n", "a: !x 1\n", "- " * 300 + "a\n", "x" * 200_000 + ": 1\n",
)  # fmt: skip


class Stop:
    """A finder of modules that ends the process where training would begin."""

    def find_spec(self, name, path=None, target=None):
        if name in TRAINS:
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
            found = judge.command(ended, judge.LONGEST + 2 * sum(map(len, words))) + judge.touched(
                before, box / "guard", box / "guard" / "SENTINEL"
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
            words += [w for _ in range(1 if kind == "info" else 3) for w in rng.choice(FLAGS)]
            rng.shuffle(words)
        return words

    def key(self, rng: Random) -> str:
        """A key that some task has."""
        return rng.choice(list(self.numbers[rng.choice(list(self.numbers))]))

    def word(self, rng: Random) -> str:
        """One override, right or wrong."""
        how = rng.choices(
            ("choice", "group", "value", "key", "sign", "hydra", "setting", "noise"), (22, 10, 26, 10, 8, 6, 14, 4)
        )[0]
        group, key, value = rng.choice(list(self.groups)), self.key(rng), rng.choice((*NUMBERS, *TEXTS))
        if how == "choice":
            choice = rng.choice(self.groups[group])
            return f"{group}={choice if rng.random() < 0.8 else f'[{choice}]'}"
        if how == "group":
            return f"{group}={value if rng.random() < 0.6 else misspelt(rng, rng.choice(self.groups[group]))}"
        if how in ("value", "key"):
            return f"{key if how == 'value' else misspelt(rng, key)}={value}"
        if how == "sign":
            return rng.choice(
                (
                    f"+{key}={value}",
                    f"++{key}={value}",
                    f"~{key}",
                    f"~{group}",
                    f"{key}",
                    f"{key}.x={value}",
                    f"/{key}=1",
                    f"{group}@x={value}",
                )
            )
        if how == "noise":
            return rng.choice(TEXTS) + rng.choice(("=", "", "==")) + value
        return rng.choice(HYDRA if how == "hydra" else SETTINGS)

    def swept(self, rng: Random) -> str:
        """An override with several values."""
        key = rng.choice((self.key(rng), self.key(rng), "seed", "model.width", rng.choice(list(self.groups))))
        if key in self.groups and rng.random() < 0.5:
            return f"{key}={','.join(rng.choices(self.groups[key], k=rng.choice((2, 3, 8))))}"
        return f"{key}={rng.choice(SWEEPS)}"

    def command(self, rng: Random) -> list[str]:
        """A command of its own with options that are wrong, missing, or for others; there is no run for any."""
        from aelab.cli import COMMANDS

        words = [rng.choice([name for name in COMMANDS if name != "ui"])]
        for _ in range(rng.choice((0, 1, 2, 4))):
            value = rng.choice((*TEXTS, *NUMBERS, ".", "nowhere", "/", "secret.log"))
            words.append(
                rng.choice(
                    (
                        f"{rng.choice(OPTIONS)}={value}",
                        f"{rng.choice(OPTIONS)}",
                        self.word(rng),
                        value,
                        *rng.choice(FLAGS),
                    )
                )
            )
        return words

    def wrong(self, rng: Random) -> list[str]:
        """A line that is right but for its last word: a key that is not there, or no number where one stands."""
        task = rng.choice([t for t in self.numbers if t != "similarity"])
        keys = self.numbers[task]
        if rng.random() < 0.4:
            key = rng.choice([k for k in keys if not k.startswith("choices")])
            return [f"task={task}", f"{misspelt(rng, key)}={rng.choice(('1', 'x', '[1]'))}"]
        numbers = [
            k
            for k, v in keys.items()
            if isinstance(v, int | float) and not isinstance(v, bool) and not k.startswith("choices")
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


def misspelt(rng: Random, name: str) -> str:
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
