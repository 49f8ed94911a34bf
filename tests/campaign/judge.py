"""Who says what a defect is: of a command that ended, of a folder that was not to be touched, of runs in a store."""

import hashlib
import json
import math
import os
import re
import sqlite3
from collections import Counter
from pathlib import Path

from campaign.forks import Defect, Ended

COLUMNS = ("runs lost", "runs doubled", "stores bricked", "tracebacks", "hangs > 10 s", "code run", "other defects")
LOST, DOUBLED, BRICKED, TRACEBACK, HANG, CODE, OTHER = COLUMNS
STOPPED = 99
"""Exit code of a line that was good: its child ended where it would have imported what trains."""
CODES = (0, 1, 2, 130, 143, STOPPED)
LONGEST = 1500
"""Characters of a message, all names of choices and a path among them."""
FRAME = re.compile(r'File "[^"]*/(aelab/[^"]+)", line (\d+),? in (\S+)')


def command(ended: Ended, longest: int = LONGEST) -> list[Defect]:
    """Defects of a command by how it ended: no traceback, no hang, one line of ours for what failed."""
    if ended.cut == "time":
        at = FRAME.search(ended.err)  # the last call comes first
        return [Defect(HANG, f"no end after {ended.seconds:.0f} s{' in {}:{} {}'.format(*at.groups()) if at else ''}")]
    if ended.cut == "memory":
        return [Defect(OTHER, "took gigabytes of memory")]
    both = f"{ended.out}\n{ended.err}"
    if "Traceback (most recent call last)" in both:
        return [Defect(TRACEBACK, traceback_line(both))]
    if ended.code == 70 or "internal error" in ended.err:
        return [Defect(TRACEBACK, ended.err.strip()[:300])]
    if ended.code < 0:
        return [Defect(OTHER, f"ended by signal {-ended.code}: {ended.err.strip()[-200:]}")]
    if ended.code not in CODES:
        return [Defect(OTHER, f"exit code {ended.code}: {ended.err.strip()[-200:]}")]
    return message_defects(ended, longest) if ended.code in (1, 2) else stray_lines(ended)


def message_defects(ended: Ended, longest: int) -> list[Defect]:
    lines = ended.err.splitlines()
    if len(lines) != 1:
        return [Defect(OTHER, f"{len(lines)} lines on standard error: {ended.err.strip()[:300]}")]
    message = lines[0].removeprefix("aelab: ")
    if message == lines[0] or not re.search(r"\w{2}", message):
        return [Defect(OTHER, f"no message of ours: {lines[0][:200]!r}")]
    if len(message) > longest:
        return [Defect(OTHER, f"a message of {len(message):,} characters: {message[:200]}")]
    if re.search(r"(?:: None$|<class '|object at 0x)", message):
        return [Defect(OTHER, f"Python in a message: {message[:300]}")]
    return []


def stray_lines(ended: Ended) -> list[Defect]:
    strange = [line for line in ended.err.splitlines() if not line.startswith("aelab: ")]
    return [Defect(OTHER, f"exit code {ended.code}, and on standard error: {strange[0][:300]}")] if strange else []


def traceback_line(text: str) -> str:
    """The last traceback in one line: where in the package, and what."""
    last = text[text.rindex("Traceback (most recent call last)") :]
    frames = FRAME.findall(last)
    where = f"{':'.join(frames[-1][:2])} {frames[-1][2]}: " if frames else ""
    errors = [
        line for line in last.splitlines()[1:] if re.match(r"\w[\w.]*(?:Error|Exception|Exit|Interrupt|\w:)", line)
    ]
    return where + (errors[-1] if errors else last.strip().splitlines()[-1])[:300]


def listing(folder: Path) -> dict[str, str]:
    """What is in a folder: each name with a hash of what it holds; links are not followed."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            kept = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = hashlib.md5(os.fsencode(kept)).hexdigest()
    return found


def guard_defects(before: dict[str, str], folder: Path) -> list[Defect]:
    """Defects of a folder that was not to be touched; SENTINEL in it is there only if code was run."""
    after = listing(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if not changed:
        return []
    column = CODE if (folder / "SENTINEL").exists() else OTHER
    return [Defect(column, f"{'code was run' if column == CODE else 'written outside'}: {', '.join(changed[:5])}")]


def finite(value: object) -> bool:
    """Whether all numbers in what a JSON file gave are finite."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def runs(store: Path) -> list[dict[str, str]]:
    """The runs of an SQLite store: status, and the tags by name. Read without MLflow, which would mend or make."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        found = {
            run: {"id": run, "status": status, "end": str(end)}
            for run, status, end in database.execute("select run_uuid, status, end_time from runs")
        }
        for run, key, value in database.execute("select run_uuid, key, value from tags"):
            found[run][key] = value
    database.close()
    return list(found.values())


def children(found: list[dict[str, str]]) -> list[dict[str, str]]:
    """The runs that are jobs, of a sweep or alone."""
    return [run for run in found if "aelab.sweep" not in run]


def sweep(found: list[dict[str, str]], jobs: int, earlier: set[str] = frozenset()) -> list[Defect]:
    """Defects of a sweep that has ended: each job FINISHED once, with its metrics; `earlier` were finished before."""
    done = [run for run in children(found) if run["status"] == "FINISHED"]
    per = Counter(run.get("aelab.signature", run["id"]) for run in done)
    defects = [Defect(LOST, f"{jobs - len(per)} of {jobs} jobs have no FINISHED run")] if len(per) < jobs else []
    if gone := earlier - {run["id"] for run in done}:
        defects.append(Defect(LOST, f"{len(gone)} runs that were FINISHED are not any more"))
    if twice := sum(count - 1 for count in per.values()):
        defects.append(Defect(DOUBLED, f"{twice} jobs have more than one FINISHED run"))
    for run in done:
        file = Path(run.get("aelab.folder", "")) / "metrics.json"
        try:
            metrics = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            defects.append(Defect(LOST, f"a FINISHED run without its metrics.json: {error}"))
            continue
        if not any(name.startswith("test/") for name in metrics) or not finite(metrics):
            defects.append(Defect(LOST, f"a FINISHED run whose metrics.json is not whole: {metrics}"))
    if left := [run["id"][:8] for run in found if run["status"] == "RUNNING"]:
        defects.append(Defect(OTHER, f"still RUNNING after the end: {', '.join(left)}"))
    return defects
