"""The judges of `make campaign`: each defect that a campaign is there to find is found, and nothing else is."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from campaign import __main__ as campaigns
from campaign import damage, forks, hostile, judge
from campaign.forks import Case, Ended

from aelab import run_files

GOOD = Ended(2, "", "aelab: seed: expected a whole number at least 0, got 'x'\n", 0.1)
TRACED = "Traceback (most recent call last):\n"
TRACED += '  File "/x/aelab/check.py", line 3, in check\n    1 / 0\nZeroDivisionError: no\n'


def found(**changed) -> list[str]:
    """The columns of what is found in a command that ended otherwise than a good one."""
    return [defect.column for defect in judge.command(GOOD._replace(**changed))]


def test_one_line_of_ours_is_no_defect():
    assert (
        found() == found(code=1) == found(code=0, err="") == found(code=143, err="aelab: terminated (SIGTERM)\n") == []
    )


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"err": TRACED}, judge.TRACEBACK),
        ({"out": TRACED, "code": 0}, judge.TRACEBACK),
        ({"code": 70, "err": "aelab: internal error: KeyError (details: f)\n"}, judge.TRACEBACK),
        ({"cut": "time", "code": -9}, judge.HANG),
        ({"cut": "memory", "code": -9}, judge.OTHER),
        ({"code": -11}, judge.OTHER),
        ({"code": 3}, judge.OTHER),
        ({"err": ""}, judge.OTHER),
        ({"err": "aelab: \n"}, judge.OTHER),
        ({"err": "aelab: a: None\n"}, judge.OTHER),
        ({"err": "aelab: one\naelab: two\n"}, judge.OTHER),
        ({"err": "seed: wrong\n"}, judge.OTHER),
        ({"err": f"aelab: {'x' * 9999}\n"}, judge.OTHER),
        ({"code": 0, "err": "UserWarning: x\n"}, judge.OTHER),
    ],
)
def test_how_a_command_ends_is_judged(changed, column):
    assert found(**changed) == [column]


def test_a_traceback_is_told_by_its_place_and_error():
    assert judge.command(GOOD._replace(err=TRACED))[0].what == "aelab/check.py:3 check: ZeroDivisionError: no"


def test_a_hang_is_told_by_its_place():
    frames = '  File "/x/lib/y.py", line 1 in f', '  File "/x/aelab/grid.py", line 9 in every'
    (defect,) = judge.command(GOOD._replace(err="\n".join(frames), cut="time", seconds=10))
    assert defect.what == "no end after 10 s in aelab/grid.py:9 every"


@pytest.mark.parametrize(("name", "column"), [("SENTINEL", judge.CODE), ("x", judge.OTHER)])
def test_what_is_written_into_the_guarded_folder_is_found(name, column, tmp_path):
    guard = forks.fresh(tmp_path / "box") / "guard"
    before = judge.listing(guard)
    assert judge.guard_defects(before, guard) == []
    (guard / name).touch()
    (defect,) = judge.guard_defects(before, guard)
    assert defect.column == column


def store(folder: Path, *runs: tuple[str, str]) -> list[dict[str, str]]:
    """The runs of a store that has so many, by signature and status; each with its metrics."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("create table runs (run_uuid, status, end_time)")
        database.execute("create table tags (key, value, run_uuid)")
        for number, (signature, status) in enumerate(runs):
            home = folder / str(number)
            home.mkdir()
            (home / "metrics.json").write_text(json.dumps({"test/psnr": 20.0}))
            database.execute("insert into runs values (?, ?, 1)", (f"run{number}", status))
            for tag in (("aelab.signature", signature), ("aelab.folder", str(home))):
                database.execute("insert into tags values (?, ?, ?)", (*tag, f"run{number}"))
    database.close()
    return judge.runs(folder / "mlflow.db")


@pytest.mark.parametrize(
    ("runs", "earlier", "columns"),
    [
        ([("a", "FINISHED"), ("b", "FINISHED"), ("b", "FAILED")], {"run0"}, []),
        ([("a", "FINISHED"), ("b", "FAILED")], set(), [judge.LOST]),
        ([("a", "FINISHED"), ("b", "FINISHED")], {"run7"}, [judge.LOST]),
        ([("a", "FINISHED"), ("b", "FINISHED"), ("b", "FINISHED")], set(), [judge.DOUBLED]),
        ([("a", "FINISHED"), ("b", "FINISHED"), ("b", "RUNNING")], set(), [judge.OTHER]),
    ],
)
def test_runs_that_are_lost_doubled_or_left_are_found(runs, earlier, columns, tmp_path):
    assert [defect.column for defect in judge.sweep(store(tmp_path, *runs), 2, earlier)] == columns


@pytest.mark.parametrize("text", ["", "{}", '{"test/psnr": NaN}', None])
def test_a_finished_run_without_whole_metrics_is_lost(text, tmp_path):
    runs = store(tmp_path, ("a", "FINISHED"))
    (tmp_path / "0" / "metrics.json").unlink()
    if text is not None:
        (tmp_path / "0" / "metrics.json").write_text(text)
    assert [defect.column for defect in judge.sweep(runs, 1)] == [judge.LOST]


class Three:
    """A campaign of three cases: one ends well, one raises, one never ends."""

    def environment(self, box):
        return dict(os.environ)

    def make(self, rng, box):
        call = (lambda: 0, lambda: 1 / 0, lambda: time.sleep(60))[rng.draw]
        return Case("row", "label", call, judge.command, 0.2)


def test_cases_are_played_in_children_and_cut_when_they_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(forks, "IDLE_S", 0.1)
    monkeypatch.setattr(forks, "Random", lambda text: type("Drawn", (), {"draw": int(text.rpartition(":")[2])}))
    until = time.monotonic() + 60
    played = [case for case, _ in forks.play(Three(), "three", 1, iter(range(3)), 2, until, tmp_path)]
    columns = {case.number: [defect.column for defect in case.defects] for case in played}
    assert columns == {0: [], 1: [judge.TRACEBACK], 2: [judge.HANG]}


def test_the_table_counts_and_the_kinds_tell_how_to_play_again():
    cases = [{"number": n, "row": "row", "label": f"words {n}", "count": 2, "defects": []} for n in range(3)]
    cases[1]["defects"] = [(judge.LOST, "run 12 is lost")]
    result = {"lines": {"seconds": 9.0, "played": cases}}
    row = campaigns.table(result).splitlines()[2].split("|")
    assert [cell.strip() for cell in row[1:-1]] == ["row", "6", "9", "1", *["0"] * 6]
    assert campaigns.kinds(result, 7) == "1 x runs lost: run 12 is lost\n    CASE=lines:1 SEED=7  words 1"


def test_a_campaign_ends_with_its_table():
    command = [sys.executable, "-m", "campaign", "--case", "lines:0", "--seed", "4"]
    tests = str(Path(__file__).parent)
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": tests}, cwd=Path(tests).parent, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| command lines | 1        |" in ended.stdout


@pytest.mark.usefixtures("keras")
def test_the_files_that_are_broken_were_good(tmp_path):
    """Else every reader would refuse them, whatever is broken."""
    from campaign import data

    campaign = data.Campaign(tmp_path)
    for number, (name, read) in enumerate(campaign.readers):
        box = forks.fresh(tmp_path / str(number))
        for file, content in campaign.files[name].items():
            (box / "cwd" / file).parent.mkdir(parents=True, exist_ok=True)
            (box / "cwd" / file).write_bytes(content)
        read(box)


def test_damage_is_of_the_seed_alone():
    data = bytes(range(256)) * 20
    made = [[damage.mangle(Random(seed), data) for seed in range(30)] for _ in range(2)]
    assert made[0] == made[1]
    assert sum(one == data for one in made[0]) < 5


def test_a_pickle_of_the_campaign_would_run(tmp_path):
    """Else a reader that runs it would not be found out."""
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    hostile.arrays(Random(0), tmp_path / "a.npz", tmp_path / "SENTINEL")
    np.load(tmp_path / "a.npz", allow_pickle=True)["x"]
    assert (tmp_path / "SENTINEL").exists()


@pytest.mark.parametrize("seed", range(20))
def test_a_hostile_config_names_what_no_config_may(seed, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("task: {_target_: aelab.tasks.denoise.Denoise}\nloss: {mse: {weight: 1}}\nfit: {monitor: x}\n")
    before = file.read_text()
    hostile.config(Random(seed), file, tmp_path / "SENTINEL")
    assert file.read_text() != before
    assert not (tmp_path / "SENTINEL").exists()


@pytest.mark.parametrize("node", hostile.nodes(Path("guard/SENTINEL"), "run")[:2], ids=lambda node: node["_target_"])
def test_a_config_of_the_campaign_would_call(node, tmp_path, monkeypatch):
    """Else a command that calls what it reads would not be found out."""
    from aelab.call import located

    guard = forks.fresh(tmp_path / "box") / "guard"
    monkeypatch.chdir(tmp_path / "box")
    before = judge.listing(guard)
    located(node["_target_"])(*(value for key, value in node.items() if key != "_target_"))
    assert [defect.column for defect in judge.guard_defects(before, guard)] == [judge.CODE]


FOLDER = Ended(0, "done\n", "", 0.1)


@pytest.mark.parametrize(
    ("written", "ended", "column"),
    [
        ({"new.npz": "x", "outputs/x": "y"}, FOLDER._replace(code=1, out="", err="aelab: f: is broken\n"), None),
        ({}, FOLDER._replace(out=""), judge.CODE),
        ({}, FOLDER, judge.OTHER),
        ({"stray": ""}, FOLDER, judge.OTHER),
        ({"scored.csv": "score\nnan\n"}, FOLDER, judge.OTHER),
        ({"scored.csv": "score\n1.5\n"}, FOLDER, None),
        ({"other/mlartifacts/a.log": "SECRET"}, FOLDER, judge.OTHER),
        ({"../guard/SENTINEL": ""}, FOLDER, judge.CODE),
    ],
)
def test_what_a_command_on_a_run_folder_leaves_is_judged(written, ended, column, tmp_path):
    from campaign import folders

    box = forks.fresh(tmp_path / "box")
    before = judge.listing(box / "guard")
    for name, text in written.items():
        (box / "cwd" / name).parent.mkdir(parents=True, exist_ok=True)
        (box / "cwd" / name).write_text(text)
    defects = folders.command_defects(before, ["score", "run=x", "output=scored.csv"], box, ended)
    assert [defect.column for defect in defects] == ([column] if column else [])


def test_damage_gets_past_the_digests_of_a_run(tmp_path):
    from campaign import folders

    (tmp_path / "a.json").write_text("{}")
    seen = set()
    for seed in range(20):
        (tmp_path / run_files.NAME).write_text('{"status": "FINISHED", "files": {"a.json": "old"}}')
        (how,) = folders.digests(Random(seed), tmp_path) or ["kept"]
        seen.add(how)
        fits = run_files.noted(tmp_path).get("a.json") in (None, run_files.digest(tmp_path / "a.json"))
        assert fits == (how != "kept")
    assert seen == {"kept", "digests made anew", "digests dropped"}
