"""The tracking store among several processes, and a server that goes away: with real processes and a real server."""

import json
import os
import signal
import subprocess
import urllib.request

import commands
import mlflow
import pandas as pd
import pytest


@pytest.fixture
def server(tmp_path):
    """A real MLflow server with a store of its own: (its address, its process)."""
    port = commands.free_port()
    words = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/files"]
    command = [str(commands.BIN / "python"), "-m", "mlflow", "server", *words, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=commands.environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        commands.wait_for(lambda: commands.answers(port), "the MLflow server")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            assert answer.status == 200
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """The server with its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


EPOCHS = 40
MANY = (f"fit.epochs={EPOCHS}", "fit.patience=null")


def test_a_server_gets_the_run_and_when_it_dies_the_run_goes_on(server, tmp_path):
    uri, process = server
    here, there = tmp_path / "one", tmp_path / "two"
    here.mkdir()
    there.mkdir()

    long = commands.start(*commands.DIGITS, *MANY, cwd=there, MLFLOW_TRACKING_URI=uri)
    short = commands.done(*commands.DIGITS, cwd=here, MLFLOW_TRACKING_URI=uri)
    store = mlflow.MlflowClient(uri)
    run = next(r for r in commands.runs(store) if r.data.tags["aelab.folder"].startswith(str(here)))
    assert run.info.status == "FINISHED"
    assert f"{uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in short.stdout
    metrics = json.loads((commands.folder_of(short) / "metrics.json").read_text())
    assert run.data.metrics["test/psnr"] == pytest.approx(metrics["test/psnr"])
    assert {"examples.png", "metrics.json"} <= {f.path for f in store.list_artifacts(run.info.run_id)}
    assert sorted(p.name for p in (here / "outputs").iterdir()) == ["claims.lock", "runs"]

    commands.wait_for(commands.rows(there, 2), "two epochs")
    kill(process)
    result = commands.end(long)
    first, *others = result.stderr.splitlines()
    assert first.startswith("aelab: lost the tracking store (")
    assert "the run goes on, everything is in its folder" in first
    assert [line for line in others if "the tracking store was lost" not in line] == []
    assert len(others) == 1
    assert result.returncode == 1
    folder = commands.folder_of(result)
    assert len(pd.read_csv(folder / "history.csv")) == EPOCHS
    assert "test/psnr" in json.loads((folder / "metrics.json").read_text())
    for name in ("report.html", "model.keras", "examples.png"):
        assert (folder / name).stat().st_size > 0


def test_a_broken_store_is_told_in_one_line(tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mlflow.db").write_text("not a database")
    result = commands.run(*commands.BASELINE, cwd=tmp_path)
    said = commands.complaint(result)
    assert "mlflow.db cannot be used" in said
    assert "file is not a database" in said
    assert result.returncode == 1
