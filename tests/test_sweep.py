"""Sweeps by the real command: one parent, a child for each job, and failures that stay their own."""

import itertools
import json
import re
import sys

import commands
import numpy as np
import pandas as pd
import pytest
import yaml

from aelab import account, compose, sweep
from aelab.work import Outcome

LIGHT = (
    sys.executable,
    "-c",
    "import atexit, sys\n"
    "atexit.register(lambda: print('HEAVY', *sorted(sys.modules.keys() & {'tensorflow', 'keras'})))\n"
    "from aelab.cli import main\nmain()",
)
FAILING = ("-m", "model=conv_ae", "model.widths=[4]", "optimizer.learning_rate=1e38,1e-3", "tracking.log_model=false")
FAILING = (*FAILING, "dataset=digits", "debug=fast")


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """(folder, result) of a good sweep of four, and of one whose first job fails."""
    cwd = tmp_path_factory.mktemp("failing")
    return commands.together(
        {
            "good": lambda: commands.swept(tmp_path_factory),
            "failing": lambda: (cwd, commands.run(*FAILING, cwd=cwd)),
        }
    )


@pytest.fixture(scope="module")
def swept(sweeps):
    """(folder, result) of the good one."""
    return sweeps["good"]


def frame(results):
    """The frame of jobs whose outcome is a dict of metrics, or why they failed."""
    made = [Outcome(None, said, 1) if isinstance(said, str) else Outcome(said) for _, said in results]
    return sweep.frame([(words, outcome) for (words, _), outcome in zip(results, made, strict=True)])


def family(cwd):
    """(parent, children) of the one sweep of a store."""
    runs = commands.runs(commands.client(cwd))
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    return parent, children


def test_sweep_is_one_parent_with_a_finished_child_for_each_job(swept):
    parent, children = family(swept[0])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["sweep/jobs"] == 4
    assert parent.data.metrics["sweep/failed"] == 0
    assert [run.info.status for run in children] == ["FINISHED"] * 4
    keys = ("corruption.gaussian.level", "model.bottleneck")
    combinations = [tuple(run.data.params[k] for k in keys) for run in children]
    assert sorted(combinations) == sorted(itertools.product(("0.2", "0.4"), ("16", "64")))
    assert len({run.data.metrics["test/psnr"] for run in children}) == 4
    assert [p.name for p in swept[0].iterdir()] == ["outputs"]
    for run in children:
        assert run.data.metrics["test/psnr_input"] > (12 if run.data.params[keys[0]] == "0.2" else 8)


def test_each_job_has_a_folder_of_its_own(swept):
    cwd, _ = swept
    (sweep,) = cwd.glob("outputs/sweeps/*/*")
    folders = sorted(p for p in sweep.iterdir() if p.is_dir())
    assert [p.name.split("-")[:2] for p in folders] == [[str(i), "conv_ae"] for i in range(4)]
    for folder in folders:
        assert {"config.yaml", "metrics.json", "history.csv", "model.keras", "report.html"} <= {
            p.name for p in folder.iterdir()
        }
        assert yaml.safe_load((folder / "config.yaml").read_text())["tracking"]["uri"] is None
    _, children = family(cwd)
    assert {run.data.tags["aelab.folder"] for run in children} == set(map(str, folders))


def test_sweep_ends_with_a_table_of_what_was_swept(swept):
    cwd, result = swept
    assert result.stderr == ""
    table = result.stdout[result.stdout.index("metrics by job") :].splitlines()
    assert all(word in table[2] for word in ("corruption.level", "model.bottleneck", "psnr"))
    assert len([line for line in table if line.startswith("│")]) == 4
    best = max(json.loads(p.read_text())["test/psnr"] for p in cwd.glob("outputs/sweeps/*/*/*/metrics.json"))
    assert f"{best:.4g}" in "\n".join(table)


def test_a_job_that_fails_does_not_stop_the_others(sweeps):
    cwd, result = sweeps["failing"]
    assert result.returncode == 1
    first, last = result.stderr.splitlines()
    assert first.startswith("aelab: job 1 failed: the loss became nan in epoch 1, step ")
    assert last == "aelab: 1 of 2 jobs failed"
    parent, children = family(cwd)
    assert parent.data.metrics["sweep/failed"] == 1
    states = {run.data.params["optimizer.learning_rate"]: run for run in children}
    assert states["1e+38"].info.status == "FAILED"
    assert "the loss became nan" in states["1e+38"].data.tags["aelab.reason"]
    assert states["0.001"].info.status == "FINISHED"
    assert "failed" in result.stdout
    (log,) = cwd.glob("outputs/sweeps/*/*/0-*/run.log")
    assert "TrainingError" in log.read_text()


def test_a_sweep_leaves_a_table_and_a_report(swept):
    cwd, result = swept
    (folder,) = cwd.glob("outputs/sweeps/*/*")
    found = pd.read_csv(folder / "sweep.csv")
    assert list(found.columns[:3]) == ["corruption.level", "model.bottleneck", "state"]
    assert set(found["state"]) == {"finished"}
    for row in found.to_dict("records"):
        (job,) = folder.glob(f"{found.index[found['test/psnr'] == row['test/psnr']][0]}-*")
        metrics = json.loads((job / "metrics.json").read_text())
        assert {k: row[k] for k in metrics} == pytest.approx(metrics)
    report = (folder / "report.html").read_text()
    assert "sweep-denoise (4 jobs)" in report
    assert "4 of 4 jobs finished" in report
    assert "test/psnr: highest" in report  # a heat map: two values of each
    assert f"report      {folder / 'report.html'}" in result.stdout
    store = commands.client(cwd)
    files = {f.path for f in store.list_artifacts(family(cwd)[0].info.run_id)}
    assert files == set(account.shown(folder))
    assert {"sweep.csv", "report.html", "psnr.png"} <= files


def test_the_report_has_what_finished_beside_what_failed(sweeps):
    (folder,) = sweeps["failing"][0].glob("outputs/sweeps/*/*")
    found = pd.read_csv(folder / "sweep.csv")
    assert list(found["state"]) == ["failed", "finished"]
    assert list(found["test/psnr"].notna()) == [False, True]
    report = (folder / "report.html").read_text()
    assert re.search(r"1 of \d jobs failed", report)
    assert "1 of 2 jobs finished" in report


@pytest.mark.parametrize("last", ["model.bottleneck=16,0", "model=conv_ae,unet_mny"])
def test_a_wrong_last_job_is_refused_before_the_first_starts(last, tmp_path):
    result = commands.run("-m", "model=conv_ae", last, "dataset=digits", "debug=fast", cwd=tmp_path)
    commands.complaint(result)
    assert result.returncode == 2
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


# ---- the table, of jobs made up


# ---- the same again


def test_a_sweep_that_is_issued_again_runs_nothing_and_shows_the_same(swept):
    cwd, first = swept
    before = {run.info.run_id for run in commands.runs(commands.client(cwd))}
    result = commands.end(commands.start("-m", *commands.GRID, cwd=cwd, program=LIGHT))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].strip() == "HEAVY"
    assert result.stdout.count("done before: run ") == 4
    tables = [r.stdout[r.stdout.index("metrics by job") :].split("report")[0] for r in (first, result)]
    assert tables[0] == tables[1]
    assert {run.info.run_id for run in commands.runs(commands.client(cwd))} == before  # its parent is gone on with
    (table,) = cwd.glob("outputs/sweeps/*/*/sweep.csv")
    assert len(pd.read_csv(table)) == 4


def test_a_plan_says_what_is_new_and_runs_nothing(swept):
    cwd, _ = swept
    before = len(commands.runs(commands.client(cwd)))
    words = ("-m", *commands.GRID[:-1], "model.bottleneck=16,32", "sweep.plan=true")
    assert commands.GRID[-1].startswith("model.bottleneck=")
    result = commands.end(commands.start(*words, cwd=cwd, program=LIGHT, COLUMNS="150"))
    lines = result.stdout.splitlines()
    assert lines[-1].strip() == "HEAVY"
    assert [sum(f" {state} " in line for line in lines if "│" in line) for state in ("done", "new")] == [2, 2]
    assert sum("model.bottleneck: 16 -> 32" in line or "64 -> 32" in line for line in lines) == 2
    assert "2 done, 2 new" in result.stdout
    assert len(commands.runs(commands.client(cwd))) == before


def test_a_job_that_failed_is_told_and_not_run_again_unless_asked(sweeps):
    cwd, _ = sweeps["failing"]
    second = commands.run(*FAILING, cwd=cwd)
    assert second.returncode == 1
    assert "failed before: run" in second.stdout
    assert "1 of 2 jobs failed" in commands.complaint(second)
    states = [run.info.status for run in commands.runs(commands.client(cwd))]
    assert sorted(states) == ["FAILED", "FINISHED", "FINISHED"]
    planned = commands.done(*FAILING, "sweep.retry=failed", "sweep.plan=true", cwd=cwd, COLUMNS="150")
    assert "1 resume, 1 done" in planned.stdout or "1 done, 1 resume" in planned.stdout
    metrics = json.loads(next(cwd.glob("outputs/sweeps/*/*/1-*/metrics.json")).read_text())
    assert f"{metrics['test/psnr']:.4g}" in second.stdout


def jobs(*rows):
    """Results of a sweep: overrides as one text, then the metrics, or the message of a failure."""
    return [(["task=denoise", *words.split()], outcome) for words, outcome in rows]


REPEATED = jobs(
    ("model=a seed=0 dataset.fold=u1", {"test/mae": 1.0, "val/mae": 2.0, "test/mae_input": 9.0, "time/fit_s": 1}),
    ("model=a seed=1 dataset.fold=u1", {"test/mae": 3.0, "val/mae": 2.0, "test/mae_input": 9.0, "time/fit_s": 1}),
    ("model=b seed=0 dataset.fold=u2", {"test/mae": 7.0, "val/mae": 1.5, "test/mae_input": 9.0, "time/fit_s": 1}),
    ("model=b seed=1 dataset.fold=u2", {"test/mae": 7.0, "val/mae": 2.5, "test/mae_input": 9.0, "time/fit_s": 1}),
)


def cells(found):
    """The rows of the table that is printed, its head first."""
    grid = sweep.table(found)
    return [[column.header for column in grid.columns], *map(list, zip(*(c.cells for c in grid.columns), strict=True))]


def test_a_frame_has_what_differs_as_text_and_no_more():
    found = frame(jobs(("seed=0 x.size=010", {"test/a": 1.0}), ("seed=0 x.size=10", {"test/b": 2.0})))
    assert list(found) == ["x.size", "state", "test/a", "test/b"]
    assert list(found["x.size"]) == ["010", "10"]
    np.testing.assert_array_equal(found[["test/a", "test/b"]], [[1, np.nan], [np.nan, 2]])


def test_the_metrics_of_a_frame_follow_their_values_in_validation():
    found = frame(REPEATED)
    assert sweep.parts(found) == (["model", "seed", "dataset.fold"], ["val/mae", "test/mae"])


def test_repeats_have_their_mean_and_sample_standard_deviation():
    head, *rows = cells(frame(REPEATED))
    assert head == ["model", "seed", "dataset.fold", "val/mae", "test/mae"]
    assert rows[:2] == [["a", "0", "u1", "2", "1"], ["a", "1", "u1", "2", "3"]]
    assert rows[4:] == [
        ["a", *["mean\nsd\n95 %"] * 2, "2\n± 0\n± 0", "2\n± 1.4\n± 13"],
        ["b", *["mean\nsd\n95 %"] * 2, "2\n± 0.71\n± 6.4", "7\n± 0\n± 0"],
    ]


@pytest.mark.parametrize("key", ["seed", "dataset.fold"])
def test_repeats_alone_are_one_group(key):
    found = frame(jobs(*((f"{key}={i}", {"test/mae": float(v)}) for i, v in enumerate((1, 2, 6)))))
    assert cells(found)[-1] == ["mean\nsd\n95 %", "3\n± 2.6\n± 6.6"]  # 4.3027 of Student's t, by a table
    assert len(cells(found)) == 1 + 3 + 1


def test_other_values_are_not_averaged():
    assert len(cells(frame(jobs(("lr=1", {"test/a": 1.0}), ("lr=2", {"test/a": 2.0}))))) == 1 + 2


def test_a_failed_job_has_its_row_and_counts_in_no_mean():
    failed = jobs(("model=a seed=2 dataset.fold=u1", "the loss became nan"))
    rows = cells(frame([*REPEATED[:2], *failed]))
    assert rows[0] == ["seed", "val/mae", "test/mae"]
    assert rows[3] == ["2", "failed", ""]
    assert rows[4] == ["mean\nsd\n95 %", "2\n± 0\n± 0", "2\n± 1.4\n± 13"]


def test_a_search_shows_what_it_went_by_and_its_best():
    found = frame(jobs(("lr=1", {"test/psnr": 9.0, "val/loss": 2.0}), ("lr=2", {"test/psnr": 8.0, "val/loss": 1.0})))
    with compose.session():
        cfg = compose.compose([], [compose.CONF])
    best = sweep.winner(found, "val/loss", cfg)
    shown = sweep.table(found, best, "val/loss")
    assert (best, shown.caption) == (1, "* best by val/loss")
    rows = list(zip(*(column.cells for column in shown.columns), strict=True))
    assert [column.header for column in shown.columns] == ["lr", "val/loss", "test/psnr"]
    assert rows == [("1", "2", "9"), ("2", "1 *", "8")]
    assert sweep.winner(found, "test/psnr", cfg) == 0


def test_failed_jobs_alone_have_a_row_each():
    found = frame(jobs(("lr=1", "no"), ("lr=2", "no")))
    assert cells(found)[1:] == [["1", "failed"], ["2", "failed"]]


def written(found, folder):
    """The names of what is written for a frame."""
    with compose.session():
        cfg = compose.compose([], [compose.CONF])
    return sweep.write(found, folder, "sweep-denoise", cfg)


def test_the_first_six_metrics_are_drawn_and_failures_are_told(tmp_path):
    many = {f"test/m{i}": float(i) for i in range(8)}
    names = written(frame(jobs(("lr=1", many), ("lr=2", many), ("lr=3", "no"))), tmp_path)
    assert names == ["sweep.csv", "report.html", *(f"m{i}.png" for i in range(6))]
    assert set(names) == {p.name for p in tmp_path.iterdir()}
    report = (tmp_path / "report.html").read_text()
    assert re.search(r"1 of \d jobs failed", report)
    assert "test/m7" in report
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 3


def test_jobs_on_other_data_than_asked_for_are_counted(tmp_path):
    found = frame(jobs(("lr=1", {"test/mae": 1.0, "data/fallback": 1.0}), ("lr=2", {"test/mae": 2.0})))
    assert sweep.others(found).startswith("1 of 2 jobs used other data")
    written(found, tmp_path)
    assert sweep.others(found) in (tmp_path / "report.html").read_text()
    assert sweep.others(frame(jobs(("lr=1", {"test/mae": 1.0})))) == ""


@pytest.mark.parametrize("words", [("lr=1", "lr=2", "lr=3"), ("a=x b=y", "a=z b=y", "a=x b=w")], ids=["line", "heat"])
def test_a_metric_that_is_no_number_anywhere_is_not_drawn(words, tmp_path):
    outcome = {"test/flat": float("nan"), "test/mae": 1.0}
    names = written(frame(jobs(*((w, outcome) for w in words))), tmp_path)
    assert names == ["sweep.csv", "report.html", "mae.png"]


def test_a_sweep_of_one_job_has_a_report_without_charts(tmp_path):
    assert written(frame(jobs(("lr=1", {"test/mae": 1.0}))), tmp_path) == ["sweep.csv", "report.html"]
