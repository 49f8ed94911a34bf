"""`aelab sync`: bring runs from their folders to a store, where they are made, or completed if the store lost them.

A folder is enough: no config is composed, no TensorFlow loaded. In another store than its first a run has another id;
there the tag `aelab.run` holds the first one. What is there already is left as it is. Others than aelab may have
written a folder: what is wrong in one is told, and does not stop the others.
"""

import csv
import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from aelab import account, circumstances, console, run_files, tracking
from aelab.config import AelabError
from aelab.store import TrackingError, place, veiled

ALL = 3
"""MLflow's number for runs that are deleted or not."""
AT_ONCE = 1000
"""MLflow's limit for one write."""
PARENT = "mlflow.parentRunId"
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
"""MLflow's codes for what is wrong in what it is given, and not with the store."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def sync(folders: list[Path], uri: str | None, output_dir: str) -> int:
    """Bring every run folder in or below `folders` to the store; tells what was done, and returns the exit code."""
    (found, broken), where = accounts(folders), veiled(place(uri, output_dir)[0])
    counts = Counter()
    if found:
        client, artifacts = tracking.connect(uri, output_dir)
        lock = Path(output_dir) / "sync.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):  # two at once would make the same run twice
                counts = bring_all(client, artifacts, found, broken)
        except Timeout as error:
            raise AelabError(f"{lock}: another aelab sync is at work here; wait for its end") from error
        except tracking.LOST as error:
            raise TrackingError(f"the tracking store {where} cannot be used: {error}; sync again") from error
    for reason in broken:
        console.complain(f"left out: {reason}")
    counts += Counter({"left out": len(broken)})
    said = ", ".join(f"{number} {done}" for done, number in counts.items())
    console.out.print(f"{counts.total()} runs: {said}\nstore {where}", soft_wrap=True)
    return 1 if broken else 0


def bring_all(client, artifacts: str | None, found: list[tuple[Path, dict]], broken: list[str]) -> Counter:
    """Bring each run; how many by what was done, in a word. Why others were not is added to `broken`."""
    runs, counts = {}, Counter()
    for name in dict.fromkeys(told["experiment"] for _, told in found):
        runs |= known(client, tracking.twice(tracking.experiment, client, name, artifacts))
    for folder, told in found:
        try:
            done = bring(client, runs, folder, told)
        except AelabError as error:
            broken.append(str(error))
            continue
        except (*tracking.LOST, OSError) as error:
            if getattr(error, "error_code", None) not in REFUSED and isinstance(error, tracking.LOST):
                raise
            if getattr(error, "errno", None) in NO_ROOM:
                raise TrackingError(f"the tracking store cannot be written: {error}; sync again") from error
            broken.append(f"{folder}: {error}")
            continue
        counts[done] += 1
        if done != "whole already":
            console.out.print(f"{done:<9}  {folder}", soft_wrap=True)
    return counts


def accounts(folders: list[Path]) -> tuple[list[tuple[Path, dict]], list[str]]:
    """(run folder, what it tells) of each run in or below the folders; sweeps, also those above, before their jobs.

    Then, why others have no part in it. Of a run that was gone on with in another folder only the last folder counts.
    """
    within, broken, found = set(), [], []
    for folder in folders:
        for place_, is_link in run_folders(folder.resolve()):
            if is_link:
                broken.append(f"{place_}: is a link; name the folder itself to bring it")
            else:
                within.add(place_)
    if not within and not broken:
        raise AelabError(
            f"no run folders (with {account.NAME}) in or below {', '.join(map(str, folders))}; name others"
        )
    within |= {folder.parent for folder in within if (folder.parent / account.NAME).exists()}
    for folder in sorted(within):
        try:
            found.append((folder, account.read(folder)))
        except AelabError as error:
            broken.append(str(error))
    found.sort(key=lambda pair: (PARENT in pair[1]["tags"], float(pair[1]["tags"]["aelab.pid_started"])))
    return list({told["run_id"]: (folder, told) for folder, told in found}.values()), broken


def run_folders(top: Path) -> Iterator[tuple[Path, bool]]:
    """Every run folder in or below a folder, and whether it is a link: below those nothing is looked for."""
    for path, names, files_ in os.walk(top):
        if account.NAME in {*files_, *names}:
            yield Path(path), False
        for name in names:
            below = Path(path, name)
            if below.is_symlink() and (below / account.NAME).exists():
                yield below, True


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
    last = max(file.lstat().st_mtime for file in folder.rglob("*"))
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
    if run and run.info.run_id == told["run_id"] and (status == "RUNNING" or gone_on_with(run, told)):
        return "running"
    if run and stands(run, told, status):
        return mended(run, folder, told)
    points = curves(folder, told, end)  # what is wrong in its files shows before a run is made of them
    made = run is None
    if made:
        tags |= {"aelab.run": told["run_id"], "aelab.folder": str(folder)}
        into = client.get_experiment_by_name(told["experiment"]).experiment_id
        run = client.create_run(into, told["start_time"], tags, told["tags"]["mlflow.runName"])
        runs[told["run_id"]] = run
    elif whole(run, told, tags):
        return "whole already"
    ended = (run.info.status, run.data.tags.get("aelab.reason")) == (status, reason)
    changed = [facts(client, run, told, tags), drawn(client, run, points), files(client, run, folder, told)]
    if not ended:  # last: a run that ended has all
        if "aelab.reason" in run.data.tags.keys() - tags.keys():
            client.delete_tag(run.info.run_id, "aelab.reason")
        client.set_terminated(run.info.run_id, status, end)
    return "made" if made else "completed" if any(changed) or not ended else "whole already"


def gone_on_with(run, told: Mapping) -> bool:
    """Whether another process than the folder tells of has just begun to go on with a run."""
    same = run.data.tags.get("aelab.pid_started") == told["tags"]["aelab.pid_started"]
    return run.info.status == "RUNNING" and not same and circumstances.alive(run.data.tags)


def stands(run, told: Mapping, status: str) -> bool:
    """Whether the store has the end that the run's process gave it, and the folder has not: it is told second.

    A folder that is older, as a copy from before the run was gone on with, never undoes a FINISHED.
    """
    if run.info.status == "FINISHED":
        return status not in ("FINISHED", "RUNNING")
    own = run.info.run_id == told["run_id"] and run.data.tags.get("aelab.reason") != tracking.DIED
    return own and told["status"] == "RUNNING" and run.info.status in ("FAILED", "KILLED")


def mended(run, folder: Path, told: Mapping) -> str:
    """Note the store's end of a run in its folder, where all is there that such a run has."""
    finished = run.info.status == "FINISHED"
    if told["status"] != "RUNNING" or (finished and not account.is_plain(folder / "metrics.json")):
        return "whole already"
    reason = None if finished else run.data.tags.get("aelab.reason")
    account.note(folder, status=run.info.status, reason=reason, end_time=run.info.end_time)
    return "mended"


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


def curves(folder: Path, told: Mapping, end: int | None) -> list[tracking.Metric]:
    """The metrics of all epochs, and the final ones of a finished run, as at their time."""
    file, found, clock = folder / "history.csv", [], float(told["start_time"])
    if file.exists():
        try:
            for row in csv.DictReader(run_files.text(file).splitlines(), strict=True):
                step = int(row.pop("epoch"))
                clock += 1000 * float(row["time/epoch_s"])
                if not (0 <= step < 2**31 and 0 <= clock < 2**53):
                    raise ValueError(f"an epoch {step} that ends at {clock}")
                found += [(k, float(v), int(clock), step) for k, v in row.items() if v]
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise AelabError(f"{file}: is no history of epochs ({error}); copy the run folder again") from error
    if told["status"] == "FINISHED":
        final = account.read(folder, "metrics.json")
        found += [(k, float(v), end, 0) for k, v in final.items()]
    return [tracking.Metric(k.replace(*tracking.REFUSED), *rest) for k, *rest in found]


def drawn(client, run, points: list[tracking.Metric]) -> bool:
    """Send those metrics that the run lacks; False if it had all."""
    have = {(m.key, m.step) for key in run.data.metrics for m in client.get_metric_history(run.info.run_id, key)}
    lacking = [m for m in points if (m.key, m.step) not in have]
    for first in range(0, len(lacking), AT_ONCE):
        client.log_batch(run.info.run_id, metrics=lacking[first : first + AT_ONCE])
    return bool(lacking)


def files(client, run, folder: Path, told: Mapping) -> bool:
    """Send the files that the run lacks, or has of another size; the model as a file, where it was to be logged."""
    names = account.shown(folder)
    for name in account.left_out(folder):
        console.complain(f"{folder / name}: is a link, or no file; left out")
    if (
        told["log_model"]
        and account.is_plain(folder / "model.keras")
        and not (run.outputs and run.outputs.model_outputs)
    ):
        names.append("model.keras")
    have = {f.path: f.file_size for f in client.list_artifacts(run.info.run_id)}
    lacking = [name for name in names if have.get(name) != (folder / name).stat().st_size]
    for name in lacking:
        client.log_artifact(run.info.run_id, str(folder / name))
    return bool(lacking)
