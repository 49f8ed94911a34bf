"""Runs that are stopped and gone on with: the same numbers, the same MLflow run, and nothing twice."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import commands
import numpy as np
import pandas as pd
import pytest
from keras.optimizers import SGD
from tensorflow.python.framework import config
from test_fit import Log, Restore, X, linear, two_optima
from test_fit import config as settings

from aelab import backend, callbacks, cli, compose, corruptions, tracking
from aelab.call import build
from aelab.config import AelabError
from aelab.data.load import load
from aelab.fit import fit
from aelab.run import optimizer, run

SMALL = ("dataset=digits", "debug=fast", "dataset.limit=64", "fit.batch_size=32", "model=conv_ae", "model.widths=[4]")
SMALL = (*SMALL, "loss=[mse]", "metric=[psnr]", "fit.patience=null", "tracking.log_model=false")
KINDS = {
    "sampled code, dropout, corrupted rows": "task=anomaly dataset=breast_cancer model=vae model.dropout=0.3 "
    "model.members=2 corruption=[jitter] schedule=cosine",
    "sampled loss, moving average": "task=recommend dataset=taste_groups dataset.users=80 model=mult_vae "
    "loss=[sampled_softmax] loss.sampled_softmax.negatives=9 +optimizer.use_ema=true",
    "recurrent": "task=language dataset=text path=words.txt model=gru model.hidden=8 model.embedding=4 "
    "fit.batch_size=4 task.window=16 schedule=warmup_cosine",
}


class Cut(Exception):
    """What stops a training in the middle."""


def cut_at(epoch):
    """A report that stops training when an epoch's row was written, before its checkpoint is."""

    def report(row):
        if row["epoch"] == epoch:
            raise Cut

    return report


@pytest.fixture
def exact(monkeypatch, keras):
    """Bit for bit the same sums; and a checkpoint after each epoch, however quick it was."""
    monkeypatch.setattr(callbacks, "SHARE", np.inf)
    yield
    config.disable_op_determinism()


def plain(history):
    """A history without times."""
    return history.drop(columns="time/epoch_s")


def same(one, other):
    """That two lists of arrays are the same in every bit."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- training, epoch by epoch


def trained(words, folder, log, **more):
    """The weights and the history of a model that is built and seeded afresh."""
    with compose.session():
        cfg = compose.compose([*words.split(), "fit.epochs=5", "fit.deterministic=true"], [compose.CONF])
    backend.prepare(cfg.seed, cfg.fit)
    task = build(cfg.task)
    data = task.prepare(load(cfg.dataset, None)[0], cfg)
    model = build(cfg.model, task.shape(data))
    corrupt = corruptions.chain(cfg.corruption)
    history = fit(model, task, data, corrupt, cfg, lambda steps: optimizer(cfg, steps), log, folder, **more)
    return model.get_weights(), history


@pytest.mark.parametrize("kind", KINDS)
def test_training_that_goes_on_ends_as_if_it_had_never_been_stopped(kind, exact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    whole, cut, log = tmp_path / "whole", tmp_path / "cut", Log()
    whole.mkdir(), cut.mkdir()
    weights, history = trained(KINDS[kind], whole, Log())
    for epoch in (1, 4):  # before there is a checkpoint, and after that of epoch 3
        with pytest.raises(Cut):
            trained(KINDS[kind], cut, Log(), resume=True, report=cut_at(epoch))
    assert callbacks.read(cut / callbacks.FILE)["epoch"] == 3
    again, resumed = trained(KINDS[kind], cut, log, resume=True)
    same(again, weights)
    pd.testing.assert_frame_equal(plain(resumed), plain(history))
    pd.testing.assert_frame_equal(plain(pd.read_csv(cut / "history.csv")), plain(pd.read_csv(whole / "history.csv")))
    assert [row["epoch"] for row in log.rows] == [1, 2, 3, 4, 5]  # what the tracker may not have yet is there too
    assert resumed.attrs["best"] == history.attrs["best"]
    assert 0 < resumed.attrs["earlier"] < 60


def passing_by(folder, **more):
    """The weight and the history of a model that validation finds best some epochs before it stops."""
    model, cfg = linear(1.0), settings(epochs=30, patience=3, batch_size=20)
    data = SimpleNamespace(train=SimpleNamespace(x=X), validation=SimpleNamespace(x=X[:5]))
    history = fit(
        model, Restore(), data, two_optima, cfg, lambda steps: SGD(1.0), more.pop("log", Log()), folder, **more
    )
    return model.get_weights()[0].item(), history


def test_early_stopping_counts_on_and_stays_stopped(exact, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    weight, history = passing_by(whole)
    best = history.attrs["best"]
    assert 2 < best == len(history) - 3
    for epoch in range(best, best + 4):  # the best, and each without a better one
        folder = tmp_path / str(epoch)
        folder.mkdir()
        with pytest.raises(Cut):
            passing_by(folder, report=cut_at(epoch))
        again, resumed = passing_by(folder, resume=True)
        assert (again, resumed.attrs["best"]) == (weight, best)
        pd.testing.assert_frame_equal(plain(resumed), plain(history))
    log = Log()
    again, resumed = passing_by(whole, resume=True, report=cut_at(best + 4), log=log)  # it had stopped
    assert (again, resumed.attrs["best"]) == (weight, best)
    pd.testing.assert_frame_equal(resumed, history)
    assert len(log.rows) == len(history)
    anew, _ = passing_by(whole)
    assert anew == weight
    assert callbacks.read(whole / callbacks.FILE)["seconds"] < 60


# ---- the file


def test_what_is_slow_to_write_is_not_written_after_each_epoch(tmp_path, monkeypatch, keras):
    """An epoch takes 1 s and a write takes 1 s, which is 5 % of 20 s: so it is written at 1, past 20 and past 40 s."""
    clock, written = [0.0], []
    monkeypatch.setattr("aelab.callbacks.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def savez(*args, **arrays):
        written.append(json.loads(arrays["facts"])["epoch"])
        clock[0] += 1

    monkeypatch.setattr("aelab.callbacks.np.savez", savez)
    kept = callbacks.Checkpoint(tmp_path / callbacks.FILE, [], None, None)
    model = linear()
    model.compile(optimizer=SGD(0.1))
    kept.set_model(model)
    for epoch in range(50):
        clock[0] += 1
        kept.on_epoch_end(epoch)
    assert written == [1, 19, 38]  # the clock shows 1, 20 and 40


def test_a_checkpoint_that_is_cut_off_is_told_in_a_line(tmp_path, exact):
    passing_by(tmp_path)
    file = tmp_path / callbacks.FILE
    whole = file.read_bytes()
    assert callbacks.read(file)["epoch"] > 3
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(
            AelabError, match=r"checkpoint.npz: cannot be read \(.*\); delete it to start this run from "
        ):
            callbacks.read(file)
    file.unlink()
    assert callbacks.read(file) is None


# ---- runs, with their MLflow run


def job(folder, *words):
    """A run's job, whose folder is `folder / "run"`."""
    words = (
        *SMALL,
        "tracking.uri=null",
        "fit.epochs=5",
        f"output_dir={folder / 'outputs'}",
        f"hydra.run.dir={folder / 'run'}",
        *words,
    )
    with compose.session():
        return compose.job(list(words), [compose.CONF], False)


def stop(epoch):
    """A report that interrupts a run."""

    def report(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return report


def curve(cwd, found):
    """The epochs of a run in MLflow, in their order, and those of its history.csv."""
    steps = [m.step for m in commands.client(cwd).get_metric_history(found.info.run_id, "val/loss")]
    return sorted(steps), list(pd.read_csv(f"{found.data.tags['aelab.folder']}/history.csv")["epoch"])


@pytest.mark.parametrize(("figure", "right"), [(float("nan"), True), (float("inf"), True), ("1", False), (True, False)])
def test_a_checkpoint_may_have_figures_that_are_not_finite(figure, right):
    facts = {"epoch": 1, "seconds": 2.5, "rows": [{"epoch": 1, "val/loss": figure}]}
    best = {"wait": 0, "stopped_epoch": 0, "best": figure, "best_epoch": 0, "best weights": 8}
    assert callbacks.sound(facts) == right
    assert callbacks.sound({**facts, "rows": [], **best}) == right


def test_a_run_that_was_stopped_goes_on_in_its_mlflow_run(tmp_path, exact):
    small, file = job(tmp_path), tmp_path / "run" / callbacks.FILE
    with pytest.raises(KeyboardInterrupt):
        run(small, time.time(), report=stop(4))
    (first,) = commands.runs(commands.client(tmp_path))
    assert (first.info.status, first.data.tags["aelab.reason"]) == ("KILLED", "interrupted (^C)")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(
        AelabError, match=r"run/checkpoint.npz: cannot be read .*; delete it to start this run from its"
    ):
        run(small, time.time())
    (second,) = commands.runs(commands.client(tmp_path))
    assert second.info.status == "FAILED"
    file.write_bytes(whole)
    began = []
    run(small, time.time(), report=lambda row: began.append(row["epoch"]))
    (third,) = commands.runs(commands.client(tmp_path))
    assert first.info.run_id == second.info.run_id == third.info.run_id
    assert (third.info.status, "aelab.reason" in third.data.tags) == ("FINISHED", False)
    assert began == [4, 5]
    assert curve(tmp_path, third) == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert not file.exists()


def test_another_config_in_the_same_folder_starts_anew(tmp_path, exact):
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path), time.time(), report=stop(4))
    began = []
    run(job(tmp_path, "seed=1", "fit.epochs=2"), time.time(), report=lambda row: began.append(row["epoch"]))
    assert began == [1, 2]
    first, second = commands.runs(commands.client(tmp_path))
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert curve(tmp_path, second) == ([1, 2], [1, 2])
    assert not (tmp_path / "run" / callbacks.FILE).exists()


def test_a_run_that_was_stopped_while_its_files_were_sent_is_gone_on_with(tmp_path, exact, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking.Log, "files", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(job(tmp_path), time.time())
    began = []
    run(job(tmp_path), time.time(), report=lambda row: began.append(row["epoch"]))
    (found,) = commands.runs(commands.client(tmp_path))
    assert (found.info.status, began) == ("FINISHED", [])


def test_the_folder_of_a_run_that_goes_on_is_named_whole(tmp_path, exact, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path), time.time(), report=stop(2))
    monkeypatch.chdir(tmp_path)
    assert cli.dispatch(["resume", "run=run", "allow=[my]"]) == 0
    (found,) = commands.runs(commands.client(tmp_path))
    assert found.data.tags["aelab.folder"] == str(tmp_path / "run")


# ---- the real command

HOLD = """
import time
from pathlib import Path

hold = Path("hold")


def mine(x, rng, /, *, level: float):
    while hold.exists():
        folder, rows = hold.read_text().rsplit(maxsplit=1)
        history = Path(folder, "history.csv")
        if not history.exists() or len(history.read_text().splitlines()) <= int(rows):
            break
        time.sleep(0.02)
    return x + level * rng.standard_normal(x.shape, x.dtype)
"""
"""A corruption that waits, once the run that the file `hold` names has so many epochs: for a kill in the middle."""


def kill(cwd, *words, pattern, epochs=3):
    """Start a command, kill it after so many epochs of a run; gives the run's folder and how many are safe there."""
    process = commands.start(*words, cwd=cwd)
    folder = commands.wait_for(lambda: next(cwd.glob(pattern), None), "the run's folder", 300)
    (cwd / "new").write_text(f"{folder} {epochs}")
    (cwd / "new").replace(cwd / "hold")

    def trained():
        history = folder / "history.csv"
        return history.exists() and len(history.read_text().splitlines()) > epochs

    commands.wait_for(trained, f"{epochs} epochs of {folder}")
    process.kill()
    assert commands.end(process, 60).returncode == -9
    (cwd / "hold").unlink()
    assert not (folder / "metrics.json").exists()
    return folder, callbacks.read(folder / callbacks.FILE)["epoch"]


def final(folder):
    """What a run came to: its metrics and its history without times, and its weights."""
    import keras

    metrics = json.loads((folder / "metrics.json").read_text())
    weights = keras.saving.load_model(folder / "model.keras", compile=False).get_weights()
    history = plain(pd.read_csv(folder / "history.csv"))
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}, history, weights


def test_a_run_that_was_killed_twice_ends_as_one_that_never_was(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    own = {cwd: commands.package(cwd, HOLD, level="0.3") for cwd in (whole, cut)}[cut]
    words = (*SMALL, *own, "fit.epochs=16", "fit.deterministic=true", "hydra.run.dir=run")

    def killed():
        _, first = kill(cut, *words, pattern="run")
        _, second = kill(cut, *words, pattern="run", epochs=8)
        last = commands.done("resume", f"run={cut / 'run'}", "allow=[my]", cwd=cut)
        again = (
            commands.run("resume", "run=run", "allow=[my]", cwd=cut),
            commands.run("resume", "run=run", "allow=[my]", "seed=1", cwd=cut),
        )
        return first, second, last, again

    calls = {"whole": lambda: commands.done(*words, cwd=whole), "cut": killed}
    first, second, last, (again, changed) = commands.together(calls)["cut"]
    assert 0 < first < second < 16
    assert last.stdout.split("epoch ")[1].startswith(f"{second + 1}/16")  # it went on from there
    (found,) = commands.runs(commands.client(cut))
    assert found.info.status == "FINISHED"
    assert curve(cut, found) == ([*range(1, 17)], [*range(1, 17)])
    one, other = final(whole / "run"), final(cut / "run")
    assert one[0] == other[0]
    pd.testing.assert_frame_equal(one[1], other[1])
    same(one[2], other[2])
    assert not (cut / "run" / callbacks.FILE).exists()
    assert "is finished" in commands.complaint(again)
    assert "to change values, type aelab rerun" in commands.complaint(changed)
    assert (again.returncode, changed.returncode) == (1, 2)


def test_a_sweep_that_is_killed_twice_runs_each_of_its_jobs_once(tmp_path):
    own = commands.package(tmp_path, HOLD, level="0.3")
    words = ("-m", *SMALL, *own, "fit.epochs=8", "model.bottleneck=range(1,13)")
    store = commands.client(tmp_path)
    first, _ = kill(tmp_path, *words, pattern="outputs/sweeps/*/*/2-*")
    begun = {one.info.run_id: one for one in commands.runs(store)}
    assert [one.info.status for one in begun.values()] == ["RUNNING", "FINISHED", "FINISHED", "RUNNING"]
    second, safe = kill(tmp_path, *words, pattern="outputs/sweeps/*/*/7-*")
    last = commands.done(*words, cwd=tmp_path)

    parent, *children = found = commands.runs(store)
    assert [one.info.status for one in found] == ["FINISHED"] * 13
    assert {one.data.tags.get("mlflow.parentRunId") for one in children} == {parent.info.run_id}
    assert parent.data.metrics == {"sweep/jobs": 12, "sweep/failed": 0}
    assert {one.data.params["model.bottleneck"] for one in children} == {str(n) for n in range(1, 13)}
    for one in children:
        assert curve(tmp_path, one) == ([*range(1, 9)], [*range(1, 9)])
    ends = {one.info.run_id: one.info.end_time for one in found}
    assert begun.keys() <= ends.keys()  # the parent and the killed job went on as what they were
    assert all(ends[n] == one.info.end_time for n, one in begun.items() if one.info.status == "FINISHED")

    folders = {Path(one.data.tags["aelab.folder"]) for one in children}
    assert folders == {p for p in first.parent.iterdir() if p.is_dir()}
    starts = {folder: (folder / "run.log").read_text().count("started with") for folder in folders}
    assert starts == dict.fromkeys(folders, 1) | {first: 2, second: 2}
    assert last.stdout.count("done before: run ") == 7
    assert last.stdout.split("epoch ")[1].startswith(f"{safe + 1}/8")  # it went on from there
    assert not list(first.parent.glob(f"*/{callbacks.FILE}"))
    assert len(pd.read_csv(first.parent / "sweep.csv")) == 12
