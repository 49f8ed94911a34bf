"""`make campaign`: play the campaigns on a budget of time, and tell what was found in one table."""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from campaign import forks, judge

SHARES = {"kills": 0.35, "lines": 0.25, "data": 0.1, "folders": 0.3}
"""Of the time, for each campaign; what one leaves goes to those after it."""
KEPT = 3
"""Cases of one kind of defect whose files are kept."""


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The words of the command, as make gives them."""
    parser = argparse.ArgumentParser("campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(SHARES), help="some of %(default)s")
    parser.add_argument("--case", help="KIND:NUMBER: play this one alone, and show what it says")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("outputs/campaign"), help="where defects are kept")
    args = parser.parse_args(argv)
    args.only = args.only.split(",")
    if strange := set(args.only) - set(SHARES):
        parser.error(f"--only: {', '.join(strange)}: there are {', '.join(SHARES)}")
    return args


def one(name: str, args: argparse.Namespace, numbers, until: float, end: float, home: Path) -> None:
    """Play one campaign, and leave what it found in a file of its name: in a process of its own, with its imports."""
    os.environ.update(TERM="dumb", NO_COLOR="1", KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    os.environ.pop("COLUMNS", None)
    began, printed, played = time.monotonic(), 0.0, []
    with native_noise_to(home / "imports"):
        campaign = importlib.import_module(f"campaign.{name}").Campaign(home)
    kinds = Counter()
    try:
        for case, box in forks.play(campaign, name, args.seed, numbers, args.at_once, until, home):
            played.append(case._asdict() | {"defects": [tuple(d) for d in case.defects]})
            for defect in case.defects:
                kinds[kind(defect)] += 1
                if kinds[kind(defect)] <= KEPT or args.case:
                    keep(name, args, case, box)
            if args.case:
                print(case.label, forks.read_stream(box, "out"), forks.read_stream(box, "err"), *case.defects, sep="\n")
            if time.monotonic() - printed > 15:
                printed = time.monotonic()
                bad = sum(kinds.values())
                print(
                    f"{name}: {len(played):,} played, {bad} defects of {len(kinds)} kinds; {end - printed:.0f} s left",
                    flush=True,
                )
    except KeyboardInterrupt:
        print(f"{name}: interrupted", flush=True)
    found = {"seconds": time.monotonic() - began, "played": played}
    (home / f"{name}.json").write_text(json.dumps(found))


@contextlib.contextmanager
def native_noise_to(file: Path):
    """Send what TensorFlow writes when it is imported to a file."""
    terminal = os.dup(2)
    with file.open("w") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def kind(defect: forks.Defect) -> str:
    """A defect without what differs from case to case."""
    text = re.sub(r"(?<![\w.])/\S+|'[^']*'|\"[^\"]*\"", "_", defect.what)
    return f"{defect.column}: {re.sub(r'[0-9a-f]{8,}|[0-9][0-9.,e+-]*', '#', text)[:90]}"


def keep(name: str, args: argparse.Namespace, case: forks.Played, box: Path) -> None:
    """Copy what reproduces a defect into a folder of its own."""
    folder = args.keep / f"{name}-{args.seed}-{case.number}"
    shutil.rmtree(folder, ignore_errors=True)
    small = [p for p in box.rglob("*") if not p.is_symlink() and p.is_file() and p.stat().st_size < 5_000_000]
    for file in small[:300]:
        target = folder / file.relative_to(box)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    folder.mkdir(parents=True, exist_ok=True)
    defects = "\n".join(f"{d.column}: {d.what}" for d in case.defects)
    again = f"make campaign CASE={name}:{case.number} SEED={args.seed}"
    (folder / "defect.txt").write_text(f"{again}\n{case.label}\n\n{defects}\n", errors="backslashreplace")


def table(found: dict[str, dict]) -> str:
    """The table of a whole campaign: a row for each kind of case."""
    rows = []
    for one_ in found.values():
        names = dict.fromkeys(case["row"] for case in one_["played"])
        for name in names:
            own = [case for case in one_["played"] if case["row"] == name]
            counts = Counter(column for case in own for column, _ in case["defects"])
            share = one_["seconds"] * len(own) / len(one_["played"])
            rows.append(
                [name, f"{sum(c['count'] for c in own):,}", f"{share:.0f}", *(str(counts[c]) for c in judge.COLUMNS)]
            )
    cells = [["", "how many", "seconds", *judge.COLUMNS], *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells)


def kinds(found: dict[str, dict], seed: int) -> str:
    """Each kind of defect once, the most frequent first, with the first case that shows it."""
    groups = defaultdict(list)
    for name, one_ in found.items():
        for case in one_["played"]:
            for defect in case["defects"]:
                groups[kind(forks.Defect(*defect))].append((name, case, defect))
    said = []
    for same in sorted(groups.values(), key=len, reverse=True):
        name, case, (column, what) = min(same, key=lambda one_: len(one_[1]["label"]))
        said.append(
            f"{len(same)} x {column}: {what[:300]}\n    CASE={name}:{case['number']} SEED={seed}  {case['label'][:300]}"
        )
    return "\n".join(said)


def main() -> int:
    """Play what was args for, one campaign after the other, each in a process of its own; 1 if anything is wrong."""
    args = options()
    alone, _, number = (args.case or "").partition(":")
    names = [alone] if alone else [name for name in SHARES if name in args.only]
    home = Path(tempfile.mkdtemp(prefix="aelab-campaign-"))
    began, found, broken, left = time.monotonic(), {}, [], sum(SHARES[name] for name in names)
    end = began + 60 * args.minutes
    try:
        for name in names:
            now = time.monotonic()
            until = now + max(0, end - now) * SHARES[name] / left
            left -= SHARES[name]
            sys.stdout.flush()
            if (pid := os.fork()) == 0:
                numbers = iter([int(number)]) if alone else itertools.count()
                one(name, args, numbers, until, end, home)
                os._exit(0)
            try:
                os.waitpid(pid, 0)
            except KeyboardInterrupt:
                os.waitpid(pid, 0)
                end = time.monotonic()
            if (home / f"{name}.json").exists():
                found[name] = json.loads((home / f"{name}.json").read_text())
            else:
                broken.append(name)
            if end <= time.monotonic():
                break
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"\nseed {args.seed}, {time.monotonic() - began:.0f} s, {args.at_once} at once\n\n{table(found)}\n")
    for name in broken:
        print(f"{name}: the campaign itself ended with an error, see above")
    wrong = bool(broken) or any(case["defects"] for one_ in found.values() for case in one_["played"])
    if wrong:
        print(f"{kinds(found, args.seed)}\n\nfiles and words: {args.keep}".encode(errors="backslashreplace").decode())
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
