"""Search: what is drawn from, that a killed search goes on as if nothing had been, and what counts as a trial."""

import math
import pickle
import subprocess
import sys

import commands
import pytest

from aelab import compose, search, space
from aelab.config import AelabError, ConfigError
from aelab.space import Choice, Number

DIRS = [compose.CONF]
DIGITS = ("dataset=digits", "model=conv_ae", "model.bottleneck=range(8,65,8)", "search.goal=val/psnr")
RATE = "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))"


def settled(*words, over=()):
    """(space, config) of a command."""
    with compose.session():
        return space.checked(space.space(list(words), dict(over), DIRS), DIRS)


def begun(folder, *words, kind="tpe"):
    """The search of a command, in a store of its own."""
    return search.opened(*settled(f"search={kind}", *DIGITS, RATE, *words, f"output_dir={folder}"))


# ---- what is searched over


@pytest.mark.parametrize(
    ("typed", "axis"),
    [
        ("model=conv_ae,unet_mini", Choice("model", ["conv_ae", "unet_mini"])),
        ("loss=[mse],[mae,ssim]", Choice("loss", ["[mse]", "[mae,ssim]"])),
        ("fit.patience=1,2,1,null", Choice("fit.patience", ["1", "2", "null"])),
        ("+model.x='a b',c", Choice("+model.x", ["'a b'", "c"])),
        ("model.bottleneck=range(8,65,8)", Number("model.bottleneck", 8, 64, 8, False)),
        ("model.bottleneck=range(9,0,-4)", Number("model.bottleneck", 1, 9, 4, False)),
        ("corruption.level=range(0.1,0.5,0.1)", Number("corruption.level", 0.1, 0.4, 0.1, False)),
        ("model.bottleneck=tag(log,range(1,9))", Number("model.bottleneck", 1, 8, 1, True)),
        ("model.bottleneck=interval(1,10)", Number("model.bottleneck", 1, 10, None, False)),
        ("model.bottleneck=int(interval(1.0,10))", Number("model.bottleneck", 1, 10, None, False)),
        ("corruption.level=interval(0,0.5)", Number("corruption.level", 0.0, 0.5, None, False)),
        (RATE, Number("optimizer.learning_rate", 1e-4, 1e-2, None, True)),
    ],
)
def test_what_is_typed_for_a_sweep_is_an_axis(typed, axis):
    (found,) = space.space(["seed=3", typed], {}, DIRS).axes()
    assert found == axis
    if isinstance(axis, Number):
        assert {type(found.low), type(found.high)} == {type(axis.low)}


def test_an_interval_has_fractions_where_its_key_takes_them(tmp_path):
    words = ("model.bottleneck=tag(log,interval(8,64))", "corruption.level=interval(0,1)", "fit.epochs=range(1,4)")
    found, _ = settled("search=random", "model=conv_ae", *words)
    assert [type(axis.low) for axis in found.axes()] == [int, float, int]
    with search.opened(found, settled("search=random", "model=conv_ae", *words, f"output_dir={tmp_path}")[1]) as trials:
        drawn = [[o.partition("=")[2] for o in asked.overrides[1:4]] for asked in trials]
    sizes, levels, epochs = ({*map(float, column)} for column in zip(*drawn, strict=True))
    assert all(size.is_integer() and 8 <= size <= 64 for size in sizes)
    assert len(levels) == 30
    assert epochs == {1, 2, 3}


def test_a_glob_is_every_choice_that_matches():
    (found,) = space.space(["model=glob(conv_ae*)"], {}, DIRS).axes()
    assert found == Choice("model", ["conv_ae", "conv_ae_spatial"])


def test_what_an_experiment_searches_over_gives_way_to_what_is_typed():
    over = {"model.bottleneck": "range(8,65,8)", "corruption.level": "0.1,0.2"}
    found = space.space(["corruption.level=0.4", "search=tpe"], over, DIRS)
    assert [axis.key for axis in found.axes()] == ["model.bottleneck"]
    assert found.job({"model.bottleneck": "16"}) == ["corruption.level=0.4", "model.bottleneck=16"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to search over: give a list, range(...) or interval(...)"),
        (("seed=0,1",), "seed=0,1: seed is the same in all trials of a search; give one value"),
        (("search.trials=3,4",), "search.trials=3,4: search is the same in all trials"),
        (("tracking.uri=a,b",), "tracking.uri=a,b: tracking is the same in all trials"),
        (("model.bottleneck=range(5,5)",), "model.bottleneck=range(5,5): an empty range"),
        (("model.bottleneck=interval(9,8)",), "expected low <= high, got 9 and 8"),
        (("corruption.level=tag(log,interval(0,1))",), "expected 0 < low <= high, got 0 and 1"),
        (("corruption.level=tag(lgo,interval(0,1))",), "the only tag is log, got lgo"),
        (("model=tag(log,choice(conv_ae,unet_mini))",), "log is for numbers between two ends"),
        (("model.bottleneck=tag(log,range(8,65,8))",), "has whole steps of 1"),
        (("corruption.level=log(interval(1,2))",), "corruption.level=log(interval(1,2)): not understood"),
        (("model.bottleneck=interval(8.5,64)",), "model.bottleneck: expected a whole number at least 1, got 8.5"),
        (("model.bottleneck=interval(0,64)",), "model.bottleneck: expected a whole number at least 1, got 0"),
        (("model=conv_ae,unet_mni", "search.goal=val/psnr"), "model=unet_mni: no such model"),
        (("model.bottleneck=8,16", "search.goal=test/psnr"), "test/psnr: no value of validation to search by; there"),
        (("model.bottleneck=8,16", "search.goal=val/roc_auc"), "are: val/loss, val/log_mse, val/ssim, val/psnr"),
        (("model.bottleneck=8,16", "search.trials=0"), "search.trials: expected a whole number at least 1, got 0"),
        (("model.bottleneck=8,16", "search.startpu=4"), "search.startpu: unknown; did you mean startup?"),
        (("model.bottleneck=8,16", "sweep.seeds=3"), "sweep.seeds: is not for a search"),
        (("loss=[mse],[mae]",), "loss=[mae]: makes val/loss another quantity; give search.goal=val/METRIC"),
    ],
)
def test_wrong_uses_are_told_in_a_line(words, told):
    with pytest.raises(ConfigError) as caught:
        settled("search=tpe", "model=conv_ae", *words)
    assert told in " ".join(str(caught.value).split())


# ---- trials over restarts

LOOP = """
import math, sys, time
from pathlib import Path
from aelab import compose, search, space
pause, *words = sys.argv[1:]
with compose.session():
    found = space.space(words, {}, [compose.CONF])
    found, cfg = space.checked(found, [compose.CONF])
assert "optuna" not in sys.modules
with search.opened(found, cfg) as trials:
    for asked in trials:
        print(asked.number, *asked.overrides, flush=True)
        time.sleep(float(pause))
        rate = float(asked.overrides[-1].partition("=")[2])
        trials.tell(asked.number, {"val/psnr": -abs(math.log10(rate) + 3)}, "", Path())
"""


def finish(folder, *words):
    """The same search here, to its end; gives the lines that the process would print."""
    lines = []
    with begun(folder, "search.startup=4", "search.trials=10", *words) as trials:
        for asked in trials:
            lines.append(" ".join([str(asked.number), *asked.overrides[:4]]) + "\n")
            rate = float(asked.overrides[3].partition("=")[2])
            trials.tell(asked.number, {"val/psnr": -abs(math.log10(rate) + 3)}, "", folder)
    return lines


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path):
    words = ("search=tpe", "search.startup=4", "search.trials=10", *DIGITS, RATE)
    killed = commands.start("0.3", *words, cwd=tmp_path, program=(sys.executable, "-c", LOOP))
    before = [line for _, line in zip(range(7), killed.stdout, strict=False)]
    killed.kill()
    assert commands.end(killed).stderr == ""  # not a word of Optuna's
    after = finish(tmp_path / "outputs")
    assert after[0] == before[-1]  # what ran when it was killed
    assert before[:-1] + after == finish(tmp_path / "whole")
    assert [int(line.split()[0]) for line in before[:-1] + after] == list(range(10))
    assert len({tuple(line.split()[1:]) for line in before[:4]}) == 4
    assert finish(tmp_path / "outputs") == []
    assert [line.split()[0] for line in finish(tmp_path / "outputs", "search.trials=12")] == ["10", "11"]


def test_what_was_not_told_is_given_out_again(tmp_path):
    with begun(tmp_path, "search.trials=3") as trials:
        asked = list(trials)
        assert [a.number for a in asked] == [0, 1, 2]
        trials.tell(1, {"val/psnr": 20.0}, "", tmp_path)
    with begun(tmp_path, "search.trials=3") as trials:
        assert list(trials) == [asked[0], asked[2]]
    with begun(tmp_path, "search.trials=2") as trials:
        assert list(trials) == [asked[0]]


def test_a_trial_whose_values_were_not_drawn_yet_gets_them(tmp_path):
    with begun(tmp_path / "whole", "search.trials=1") as trials:
        (expected,) = trials
    with begun(tmp_path / "broken", "search.trials=1") as trials:
        trials.study.ask()
    with begun(tmp_path / "broken", "search.trials=1") as trials:
        assert [a.overrides[:4] for a in trials] == [expected.overrides[:4]]


def test_one_search_is_run_by_one_process_at_a_time(tmp_path):
    with begun(tmp_path), pytest.raises(AelabError, match="this search is running already"), begun(tmp_path):
        pass
    with begun(tmp_path), begun(tmp_path, "seed=1"):
        pass


def test_other_values_are_another_search_and_other_totals_are_not(tmp_path):
    names = []
    for words in ((), ("search.trials=5",), ("seed=1",), ("fit.epochs=9",), ("search.startup=3",), ("search.prune=2",)):
        with begun(tmp_path, *words) as trials:
            names.append(trials.name)
    assert names[0] == names[1]
    assert len(set(names)) == 5


def test_bayesian_search_starts_as_random_search_does_and_then_learns(tmp_path):
    found = {}
    for kind in ("random", "tpe"):
        with begun(tmp_path, "search.trials=30", kind=kind) as trials:
            for asked in trials:
                size, rate = (float(o.partition("=")[2]) for o in asked.overrides[2:4])
                value = (size / 64 - 0.6) ** 2 + (math.log10(rate) + 3) ** 2
                trials.tell(asked.number, {"val/psnr": -value}, "", tmp_path)
            found[kind] = trials.ended()
    words = {kind: [e.overrides for e in ended] for kind, ended in found.items()}
    assert words["tpe"][:10] == words["random"][:10]
    assert words["tpe"][10] != words["random"][10]
    near = {kind: sum(e.value > -0.05 for e in ended[10:]) for kind, ended in found.items()}
    assert near["tpe"] >= 2 * near["random"] > 0


# ---- what counts


def test_a_trial_without_a_finite_value_failed_and_counts(tmp_path):
    told = [({"val/psnr": v}, "") for v in (1.0, math.nan, math.inf, 3.0, 2.0)] + [(None, "out of memory")]
    with begun(tmp_path, "search.trials=6") as trials:
        for asked, (metrics, reason) in zip(trials, told, strict=True):
            trials.tell(asked.number, metrics, reason, tmp_path)
        assert list(trials) == []
        ended = trials.ended()
        assert [e.state for e in ended] == ["finished", "failed", "failed", "finished", "finished", "failed"]
        assert [e.reason for e in ended] == ["", "val/psnr is nan", "val/psnr is inf", "", "", "out of memory"]
        assert [e.value for e in ended if e.state == "failed"] == [None] * 3
        assert ended[3].metrics == {"val/psnr": 3.0}


HISTORY = "epoch,val/loss,val/psnr\n1,0.5,20\n2,0.3,19\n3,nan,30\n4,0.4,25\n"


@pytest.mark.parametrize(
    ("words", "metrics", "value"),
    [
        ((), {}, 19.0),  # of epoch 2, whose weights are kept
        (("fit.monitor=val/psnr",), {}, 30.0),
        (("search.goal=null",), {}, 0.3),
        (("search.goal=val/loss",), {"test/psnr": 9.0, "val/loss": 0.2}, 0.2),
    ],
)
def test_the_value_is_that_of_the_model_that_was_kept(tmp_path, words, metrics, value):
    (tmp_path / "history.csv").write_text(HISTORY)
    with begun(tmp_path, *words) as trials:
        assert trials.value(metrics, tmp_path) == value


def test_a_goal_that_a_run_did_not_measure(tmp_path):
    with begun(tmp_path, "search.goal=val/mae") as trials:
        (tmp_path / "history.csv").write_text(HISTORY)
        for folder, known in ((tmp_path, "val/loss, val/psnr, val/ssim"), (tmp_path / "none", "val/ssim")):
            with pytest.raises(ConfigError, match=f"search.goal=val/mae: not measured by .*; it has: {known}$"):
                trials.value({"val/ssim": 0.5, "test/psnr": 1.0}, folder)


REPORT = """
import pickle, sys
from aelab import search
trial = pickle.loads(bytes.fromhex(sys.argv[1]))
for epoch, value in enumerate(sys.argv[2:], 1):
    try:
        trial.report({"epoch": epoch, "val/psnr": float(value)})
    except search.Pruned as reason:
        print(reason, reason.code)
        break
"""


def reported(trial, *values, cwd):
    """What a process of its own, that reports these values of its epochs, is told."""
    words = (pickle.dumps(trial).hex(), *map(str, values))
    result = commands.end(commands.start(*words, cwd=cwd, program=(sys.executable, "-c", REPORT)))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_a_trial_worse_than_the_median_is_pruned_from_another_process(tmp_path):
    with begun(tmp_path, "search.trials=8", "search.prune=2") as trials:
        asked = iter(trials)
        for best in (10.0, 20.0, 30.0, 40.0, 50.0):  # the median of epoch 2 is 30
            one = next(asked)
            for epoch, value in enumerate((1.0, best), 1):
                one.trial.report({"epoch": epoch, "val/psnr": value})
            trials.tell(one.number, {"val/psnr": best}, "", tmp_path)
        good, bad = next(asked), next(asked)
        reason = "pruned after epoch 2: val/psnr 29.5 is worse than the median of the trials"
        assert reported(good.trial, 0.5, 30.5, cwd=tmp_path) == ""  # the first epoch is not judged
        assert reported(bad.trial, math.nan, 29.5, 99, cwd=tmp_path) == f"{reason} 0"
        good.trial.report({"epoch": 2, "val/psnr": 1.0})  # a run that goes on: what was told stands
        trials.tell(bad.number, None, reason, tmp_path)
        trials.tell(good.number, {"val/psnr": 30.5}, "", tmp_path)
        ended = trials.ended()
        assert [e.state for e in ended] == ["finished"] * 6 + ["pruned"]
        assert (ended[6].value, ended[6].reason, ended[6].metrics) == (29.5, reason, None)
        last = next(asked)
        assert (last.number, next(asked, None)) == (7, None)
        with pytest.raises(ConfigError, match=r"search\.prune=2: val/psnr is not measured by epoch"):
            last.trial.report({"epoch": 1, "val/loss": 1.0})


OPEN = """
import os, sys
from pathlib import Path
from aelab import search
search.storage(Path(f"{os.getpid()}.db").resolve(), os.getpid())  # all is imported: now they start together
print("ready", flush=True)
sys.stdin.readline()
search.storage(Path("search.db").resolve(), os.getpid())
"""


def test_processes_that_make_the_store_at_once_do_not_crash(tmp_path):
    program = (sys.executable, "-c", OPEN)
    processes = [subprocess.Popen(program, cwd=tmp_path, stdin=-1, stdout=-1, text=True) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0] * 4
