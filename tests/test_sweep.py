"""Sweeps by the real command: one parent, a child for each job, and failures that stay their own."""

import itertools
import json

import commands
import pytest
import yaml


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """(folder, result) of a good sweep of four, and of one whose first job fails."""
    cwd = tmp_path_factory.mktemp("failing")
    words = ("model=conv_ae", "model.widths=[4]", "optimizer.learning_rate=1e38,1e-3", "tracking.log_model=false")
    return commands.together(
        {
            "good": lambda: commands.swept(tmp_path_factory),
            "failing": lambda: (cwd, commands.run("-m", *words, "dataset=digits", "debug=fast", cwd=cwd)),
        }
    )


@pytest.fixture(scope="module")
def swept(sweeps):
    """(folder, result) of the good one."""
    return sweeps["good"]


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
    assert first.startswith("aelab: the loss became nan in epoch 1, step ")
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


@pytest.mark.parametrize("last", ["model.bottleneck=16,0", "model=conv_ae,unet_mny"])
def test_a_wrong_last_job_is_refused_before_the_first_starts(last, tmp_path):
    result = commands.run("-m", "model=conv_ae", last, "dataset=digits", "debug=fast", cwd=tmp_path)
    commands.complaint(result)
    assert result.returncode == 2
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
