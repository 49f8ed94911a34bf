"""`aelab sync`: bring runs from their folders to a store, where they are made, or completed if the store lost them.

A folder is enough: no config is composed, no TensorFlow loaded. In another store than its first a run has another id;
there the tag `aelab.run` holds the first one. What is there already is left as it is.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from aelab import account, circumstances, console, tracking
from aelab.config import AelabError
from aelab.store import TrackingError, place, veiled

ALL = 3
"""MLflow's number for runs that are deleted or not."""
AT_ONCE = 1000
"""MLflow's limit for one write."""
PARENT = "mlflow.parentRunId"


def sync(folders: list[Path], uri: str | None, output_dir: str) -> int:
    """Bring every run folder in or below `folders` to the store; tells what was done, and returns the exit code."""
    found, where = accounts(folders), veiled(place(uri, output_dir)[0])
    client, artifacts = tracking.connect(uri, output_dir)
    lock = Path(output_dir) / "sync.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):  # two at once would make the same run twice
            counts = bring_all(client, artifacts, found)
    except Timeout as error:
        raise AelabError(f"{lock}: another aelab sync is at work here; wait for its end") from error
    except tracking.LOST as error:
        raise TrackingError(f"the tracking store {where} cannot be used: {error}; sync again") from error
    said = ", ".join(f"{number} {done}" for done, number in counts.items())
    console.out.print(f"{len(found)} runs: {said}\nstore {where}", soft_wrap=True)
    return 0


def bring_all(client, artifacts: str | None, found: list[tuple[Path, dict]]) -> Counter:
    """Bring each run; how many by what was done, in a word."""
    runs, counts = {}, Counter()
    for name in dict.fromkeys(told["experiment"] for _, told in found):
        runs |= known(client, tracking.twice(tracking.experiment, client, name, artifacts))
    for folder, told in found:
        done = bring(client, runs, folder, told)
        counts[done] += 1
        if done != "whole already":
            console.out.print(f"{done:<9}  {folder}", soft_wrap=True)
    return counts


def accounts(folders: list[Path]) -> list[tuple[Path, dict]]:
    """(run folder, what it tells) of each run in or below the folders; sweeps, also those above, before their jobs.

    Of a run that was gone on with in another folder only the last folder counts.
    """
    files = {file.resolve() for folder in folders for file in folder.rglob(account.NAME)}
    if not files:
        raise AelabError(
            f"no run folders (with {account.NAME}) in or below {', '.join(map(str, folders))}; name others"
        )
    within = {file.parent for file in files}
    within |= {folder.parent for folder in within if (folder.parent / account.NAME).exists()}
    found = [(folder, account.read(folder)) for folder in sorted(within)]
    found.sort(key=lambda pair: (PARENT in pair[1]["tags"], float(pair[1]["tags"]["aelab.pid_started"])))
    return list({told["run_id"]: (folder, told) for folder, told in found}.values())


def known(client, experiment_id: str) -> dict:
    """The runs of an experiment, deleted ones too, by the id that each had in its first store."""
    found, page = {}, None
    while page != "":
        part = client.search_runs([experiment_id], run_view_type=ALL, page_token=page)
        found |= {run.data.tags.get("aelab.run", run.info.run_id): run for run in part}
        page = part.token or ""
    return found


def ending(folder: Path, told: Mapping) -> tuple[str, str | None, int | None]:
    """(state, reason, end in ms) of a run, by its own word, or by its process where it could leave none."""
    if told["status"] != "RUNNING":
        return told["status"], told["reason"], told["end_time"]
    last = max(file.stat().st_mtime for file in folder.rglob("*"))
    if circumstances.alive({**told["tags"], "aelab.heartbeat": str(last)}):
        return "RUNNING", None, None
    return "FAILED", tracking.DIED, int(last * 1000)


def bring(client, runs: dict, folder: Path, told: Mapping) -> str:
    """Make or complete one run, and add it to `runs`; returns in a word what was done."""
    status, reason, end = ending(folder, told)
    tags = {**told["tags"], **({"aelab.reason": reason} if reason else {})}
    above = runs.get(tags.pop(PARENT, None))
    if above:
        tags[PARENT] = above.info.run_id
    run = runs.get(told["run_id"])
    if run and run.info.lifecycle_stage == "deleted":
        return "deleted"
    if run and status == "RUNNING" and run.info.run_id == told["run_id"]:
        return "running"
    made = run is None
    if made:
        tags |= {"aelab.run": told["run_id"], "aelab.folder": str(folder)}
        into = client.get_experiment_by_name(told["experiment"]).experiment_id
        run = client.create_run(into, told["start_time"], tags, told["tags"]["mlflow.runName"])
        runs[told["run_id"]] = run
    elif whole(run, told, tags):
        return "whole already"
    ended = (run.info.status, run.data.tags.get("aelab.reason")) == (status, reason)
    changed = [facts(client, run, told, tags), curves(client, run, folder, told, end), files(client, run, folder, told)]
    if not ended:  # last: a run that ended has all
        if "aelab.reason" in run.data.tags.keys() - tags.keys():
            client.delete_tag(run.info.run_id, "aelab.reason")
        client.set_terminated(run.info.run_id, status, end)
    return "made" if made else "completed" if any(changed) or not ended else "whole already"


def whole(run, told: Mapping, tags: Mapping) -> bool:
    """Whether a run has the end that its own process gave it: nothing is sent after that, nor after a loss."""
    have = run.data.tags
    same = run.info.status == told["status"] and all(have.get(k) == tags.get(k) for k in ("aelab.reason", PARENT))
    return same and told["status"] != "RUNNING"


def facts(client, run, told: Mapping, tags: Mapping) -> bool:
    """Send the parameters, tags and input that the run lacks, and the true reason of its end; False if it had all."""
    have = run.data.tags
    params = {k: v for k, v in told.get("params", {}).items() if k not in run.data.params}
    tags = {k: v for k, v in tags.items() if k not in have or (k in ("aelab.reason", PARENT) and v != have[k])}
    data = "dataset" in told and not run.inputs.dataset_inputs
    if params or tags:
        client.log_batch(
            run.info.run_id,
            params=[tracking.Param(k, v) for k, v in params.items()],
            tags=[tracking.RunTag(k, v) for k, v in tags.items()],
        )
    if data:
        tracking.twice(client.log_inputs, run.info.run_id, tracking.inputs(told["dataset"]))
    return bool(params or tags or data)


def curves(client, run, folder: Path, told: Mapping, end: int | None) -> bool:
    """Send the metrics of those epochs that the run lacks, and the final ones of a finished run, as at their time."""
    wanted, clock = [], float(told["start_time"])
    if (folder / "history.csv").exists():
        with (folder / "history.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("epoch"))
                clock += 1000 * float(row["time/epoch_s"])
                wanted += [(k, float(v), int(clock), step) for k, v in row.items() if v]
    if told["status"] == "FINISHED":
        final = account.read(folder, "metrics.json")
        wanted += [(k, v, end, 0) for k, v in final.items()]
    wanted = [tracking.Metric(k.replace(*tracking.REFUSED), *rest) for k, *rest in wanted]
    have = {(m.key, m.step) for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)}
    lacking = [m for m in wanted if (m.key, m.step) not in have]
    for first in range(0, len(lacking), AT_ONCE):
        client.log_batch(run.info.run_id, metrics=lacking[first : first + AT_ONCE])
    return bool(lacking)


def files(client, run, folder: Path, told: Mapping) -> bool:
    """Send the files that the run lacks, or has of another size; the model as a file, where it was to be logged."""
    names = account.shown(folder)
    if told["log_model"] and (folder / "model.keras").exists() and not (run.outputs and run.outputs.model_outputs):
        names.append("model.keras")
    have = {f.path: f.file_size for f in client.list_artifacts(run.info.run_id)}
    lacking = [name for name in names if have.get(name) != (folder / name).stat().st_size]
    for name in lacking:
        client.log_artifact(run.info.run_id, str(folder / name))
    return bool(lacking)
