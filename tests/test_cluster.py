"""The contract of launchers that give each job a process, here and on a cluster; and a cluster that loses a node."""

import json
import os
import re
import signal
import sys
import threading
import warnings
from pathlib import Path

import commands
import launched
import psutil
import pytest

from aelab.config import ConfigError
from aelab.launchers import cluster, slurm
from aelab.work import MEMORY, Terminated, on_sigterm

AROUND = {"gpus": 0, "memory_gb": 0.5}


@pytest.fixture(scope="module")
def nodes():
    """A Ray cluster of two nodes of two processors."""
    import ray
    from ray.cluster_utils import Cluster

    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}  # to find out that a node is dead
    head = {"num_cpus": 2, "include_dashboard": False, "_system_config": quick}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Cluster(initialize_head=True, head_node_args=head)
        found.add_node(num_cpus=2)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(params=["ray", "slurm"])
def launch(request):
    """A launcher with all its knobs but at_once and minutes."""

    def ray(works, **knobs):
        address = request.getfixturevalue("nodes").address
        return cluster.ray(works, launched.perform, address=address, cpus=1, **AROUND, **knobs)

    def submitit(works, **knobs):
        own = {"cluster": "local", "partition": None, "cpus": 1}
        return slurm.slurm(works, launched.perform, **own, **AROUND, **knobs)

    return {"ray": ray, "slurm": submitit}[request.param]


def jobs(folder, *words):
    return [launched.work(folder, number, *word.split()) for number, word in enumerate(words)]


def reasons(outcomes):
    return {work.number: outcome.reason for work, outcome in outcomes}


def gone(pid):
    """Whether a process has ended; nobody may have asked for its exit code."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# ---- the contract


def test_each_job_gives_its_outcome_and_a_failure_is_its_own(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("AELAB_TEST", "from the command")
    monkeypatch.chdir(tmp_path)
    words = ("good", "exits 3", "crashes", f"exits {MEMORY}", "raises", "good")
    works = jobs(tmp_path, *words)
    found = {work.number: outcome for work, outcome in launch(iter(works), at_once=3, minutes=5)}
    assert len(found) == len(words)
    for number in (0, 5):
        assert found[number] == ({"test/number": float(number), "threads": 1, "memory_gb": 0.5}, "", 0, None)
        assert launched.trace(works[number])[0] == ["begun", "ended"]
    told = ("with exit code 3$", "by SIGSEGV$", "more memory than 0.5 GB", "with exit code 1$")
    for number, text in enumerate(told, 1):
        assert (found[number].metrics, found[number].code) == (None, 1)
        assert re.search(text, found[number].reason), found[number].reason
    assert "ValueError: as it was asked to" in (works[4].job.folder / "run.log").read_text()
    cwd, variable, *path = (works[0].job.folder / "around").read_text().splitlines()
    assert (cwd, variable) == (str(tmp_path), "from the command")
    assert set(filter(None, sys.path)) <= set(path)


def test_a_job_that_takes_too_long_is_stopped(launch, tmp_path):
    (work,) = jobs(tmp_path, f"waits {tmp_path / 'never'}")
    ((_, outcome),) = launch(iter([work]), at_once=1, minutes=0.2)  # 12 s, so that it has begun, however slow the start
    assert outcome == (None, "it took longer than 0.2 minutes (launcher.minutes)", 1, None)
    assert launched.trace(work)[0] == ["begun", "stopped"]


def test_a_job_is_asked_for_only_when_there_is_room_and_told_as_soon_as_it_ends(launch, tmp_path):
    file, asked = tmp_path / "go", []

    def works():
        for work in jobs(tmp_path, f"waits {file}", *["good"] * 3):
            asked.append(work.number)
            yield work

    outcomes = launch(works(), at_once=2, minutes=5)
    for number in range(1, 4):  # the first waits, the others pass by it
        assert next(outcomes)[0].number == number
        assert asked == [*range(number + 1)]
    file.touch()
    assert next(outcomes)[0].number == 0
    assert next(outcomes, None) is None


@pytest.mark.parametrize("how", ["closed", "terminated"])
def test_what_runs_is_stopped_with_the_launcher(how, launch, tmp_path):
    works = jobs(tmp_path, "good", f"waits {tmp_path / 'never'}", f"waits {tmp_path / 'never'}")
    outcomes = launch(iter(works), at_once=2, minutes=5)
    assert next(outcomes)[0].number == 0
    if how == "closed":
        commands.wait_for(lambda: launched.trace(works[1])[0], "the second job")
        outcomes.close()
        begun = works[1:2]
    else:
        begun = works[1:]
        held = signal.signal(signal.SIGTERM, on_sigterm)

        def terminate():
            commands.wait_for(lambda: all(launched.trace(w)[0] for w in begun), "both jobs")
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=terminate)
        thread.start()
        try:
            with pytest.raises(Terminated):
                next(outcomes)
        finally:
            thread.join()
            signal.signal(signal.SIGTERM, held)
    for work in begun:
        commands.wait_for(
            lambda w=work: launched.trace(w)[0] == ["begun", "stopped"], f"the end of job {work.number}", 15
        )
        (pid,) = launched.trace(work)[1]
        commands.wait_for(lambda p=pid: gone(p), "the end of its process", 15)


@pytest.mark.parametrize(("launcher", "package"), [(cluster.ray, "ray"), (slurm.slurm, "submitit")])
def test_a_package_that_is_not_there_is_named(launcher, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    knobs = dict.fromkeys(
        ("cpus", "at_once", "minutes", *(["address"] if package == "ray" else ["cluster", "partition"]))
    )
    with pytest.raises(ConfigError, match=rf"^launcher={launcher.__name__}: needs the package {package}; pip install"):
        next(launcher(iter(()), launched.perform, **AROUND, **knobs))


# ---- Ray


def ray(works, address, **knobs):
    return cluster.ray(
        iter(works),
        launched.perform,
        **{"cpus": 1, "at_once": None, "minutes": None, **AROUND, **knobs},
        address=address,
    )


def test_a_node_that_dies_loses_no_job(nodes, tmp_path):
    file, node = tmp_path / "go", nodes.add_node(num_cpus=2)
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    works, lost = jobs(tmp_path, *[f"waits {file}"] * 7), []

    def begun():
        return [pid for work in works for pid in launched.trace(work)[1]]

    def power_cut():
        commands.wait_for(lambda: len(begun()) == 6, "as many jobs as processors")
        of_node = [raylet, *raylet.children(recursive=True)]
        lost.extend({p.pid for p in of_node} & {*begun()})
        for process in of_node:
            process.kill()
        file.touch()

    thread = threading.Thread(target=power_cut)
    thread.start()
    found = list(ray(works, nodes.address))
    thread.join()
    assert len(lost) == 2
    assert sorted(work.number for work, _ in found) == [*range(7)]
    assert set(reasons(found).values()) == {""}
    for work in works:
        words, pids = launched.trace(work)
        assert words == ["begun"] * (1 + (pids[0] in lost)) + ["ended"]


def swept(cwd):
    """The metrics of each job, but for times."""
    files = sorted(cwd.glob("outputs/sweeps/*/*/*/metrics.json"))
    found = [json.loads(file.read_text()) for file in files]
    return [{k: v for k, v in metrics.items() if not k.startswith("time/")} for metrics in found]


def test_a_sweep_whose_node_dies_gives_what_it_gives_in_process(nodes, tmp_path):
    grid = ("model.bottleneck=4,8,16", "fit.epochs=8", "fit.deterministic=true", "fit.precision=float32")
    words = ("-m", "dataset=digits", "debug=fast", "model=conv_ae", "model.widths=[8,16]", *grid)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    same = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "2")  # as sums depend on them
    commands.done(*words, "launcher=inline", cwd=here, **same)
    node = nodes.add_node(num_cpus=2)
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    running = commands.start(*words, "launcher=ray", f"launcher.address={nodes.address}", "launcher.cpus=2", cwd=there)

    def trained():
        logs = {f.path for p in raylet.children(recursive=True) for f in p.open_files() if f.path.endswith("run.log")}
        files = [Path(log).parent / "history.csv" for log in logs]
        return next((file for file in files if file.exists() and len(file.read_text().splitlines()) > 2), None)

    history = commands.wait_for(trained, "a job of the node that has a checkpoint")
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    result = commands.end(running)
    assert (result.returncode, result.stderr) == (0, "")
    log = (history.parent / "run.log").read_text()
    assert (log.count("started with"), log.count("epoch 1/8")) == (2, 1)  # it went on
    assert len(swept(there)) == 3
    assert swept(there) == swept(here)


def test_a_job_that_no_node_has_room_for_is_refused(nodes):
    with pytest.raises(ConfigError, match=r"no node has room for a job \(CPU 3, memory 5e\+08\)"):
        next(ray([], nodes.address, cpus=3))


def test_an_address_without_a_cluster_is_refused():
    port = commands.free_port()
    with pytest.raises(ConfigError, match=f"^launcher.address=127.0.0.1:{port}: no Ray cluster found there"):
        next(ray([], f"127.0.0.1:{port}"))


def test_without_an_address_the_cluster_lasts_as_long_as_the_sweep(tmp_path):
    before = set(psutil.Process().children(recursive=True))
    found = list(ray(jobs(tmp_path, "good", "exits 3"), None))
    assert sorted(reasons(found).items()) == [(0, ""), (1, "its process ended by itself, with exit code 3")]
    commands.wait_for(lambda: set(psutil.Process().children(recursive=True)) <= before, "the end of Ray", 15)


# ---- Slurm


def test_where_there_is_no_slurm_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    knobs = {"cluster": "slurm", "at_once": 1, "partition": None, "cpus": 1, "minutes": 1, **AROUND}
    with pytest.raises(ConfigError, match=r"^launcher=slurm: no sbatch here"):
        next(slurm.slurm(iter(jobs(tmp_path, "good")), launched.perform, **knobs))
