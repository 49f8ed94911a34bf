"""Files by name: from the user's folder, the cache, or a download. A file that is there is never changed."""

import contextlib
import os
import re
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aelab.config import DataError, DataUnavailable
from aelab.data.limits import shown, size

# Seconds for a mirror to give any answer: with two mirrors, a machine without network gives up after 8 s.
ANSWER_S = 4.0
# Seconds without a byte after which a running download counts as broken.
STALL_S = 15.0
# Downloads from each mirror that answers: a connection may be cut once.
TRIES = 2


def fetch(folder: str, filename: str, *, urls: list[str], md5: str, data_dir: str | None) -> Path:
    """Path of a file, as it was found: with or without its `.gz`, its content for the caller to check.

    Looked for in `data_dir/folder`, then in the cache (AELAB_CACHE_DIR, or the system's cache folder), then
    downloaded into the cache from each of the `urls` in turn; a download takes its name only when it is
    whole and its MD5 right. Errors: DataUnavailable, one line: where it was looked for, why no download,
    what to do.
    """
    found, roots = look(folder, filename, data_dir)
    if found:
        return found
    kept = roots[-1]
    if Path(folder).is_absolute() or ".." in Path(folder).parts:  # it may stand in a run folder that is another's
        raise DataError(f"{folder}/{filename}: no such file, and none is downloaded to there: expected a relative path")
    failures = []
    for url in urls:
        failure = knock(url)
        for _ in range(0 if failure else TRIES):
            failure = download(url, kept / filename, md5)
            if not failure:
                return kept / filename
        failures.append(f"{urlsplit(url).netloc or url}: {failure}")
    raise DataUnavailable(
        f"{folder}/{filename} is not in {' or '.join(map(str, roots))}, and could not be downloaded "
        f"({'; '.join(failures) or 'no mirrors are set'}): connect to the network, or put the files of "
        f"{folder} into $AELAB_DATA_DIR/{folder}/ or {kept}/"
    )


class Way(NamedTuple):
    """A way to have a data set: all of some files of a folder, which may be downloaded from `urls`."""

    folder: str
    names: tuple[str, ...]
    urls: list[str]


def reads(ways: Callable[[Mapping], list[Way]]) -> Callable:
    """Say of a data set which files it reads, as a function of its knobs: so they can be looked for without reading."""

    def mark(data_set: Callable) -> Callable:
        data_set.ways = ways
        return data_set

    return mark


def cache() -> Path:
    """The folder that downloads go to."""
    import pooch

    return Path(os.environ.get("AELAB_CACHE_DIR") or pooch.os_cache("aelab")).expanduser().absolute()


def look(folder: str, filename: str, data_dir: str | None) -> tuple[Path | None, list[Path]]:
    """(the file, with or without its `.gz`, or None; where it was looked for, the cache last)."""
    own = cache() / folder
    roots = [Path(data_dir).expanduser() / folder, own] if data_dir else [own]
    for root in roots:
        for path in (root / filename, root / filename.removesuffix(".gz"), root / f"{filename}.gz"):
            if os.path.isfile(path):  # unlike Path.is_file, False in a folder that may not be entered
                return path, roots
    return None, roots


def unpacked(folder: str, filename: str, *, archive: str, urls: list[str], md5: str, data_dir: str | None) -> Path:
    """Path of a file of a published zip, unpacked where it was found; the zip is downloaded where the file is nowhere.

    In the zip the file stands in a folder of the name `archive`. Errors: DataUnavailable; DataError for a zip that
    lacks the file or is broken.
    """
    found, roots = look(folder, filename, data_dir)
    if found:
        return found
    try:
        source = fetch(folder, f"{archive}.zip", urls=urls, md5=md5, data_dir=data_dir)
    except DataUnavailable as error:
        raise DataUnavailable(f"{folder}/{filename} is not there, and {error}") from error
    part = roots[-1] / f".{filename}.{os.getpid()}.part"
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(source) as file:
            info, room = file.getinfo(f"{archive}/{filename}"), shutil.disk_usage(part.parent).free
            if info.file_size > room:
                raise DataUnavailable(
                    f"{source}: {archive}/{filename} takes {size(info.file_size)} of disk, and {roots[-1]} has "
                    f"{size(room)}; make room there, or choose another folder with AELAB_CACHE_DIR"
                )
            with file.open(info) as inside, part.open("wb") as target:
                shutil.copyfileobj(inside, target)
        return part.replace(roots[-1] / filename)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        # RuntimeError: encrypted, or packed in a way that is not known; ValueError: a header that cannot be
        raise DataError(f"{source}: {archive}/{filename} cannot be had from it: {shown(error.args[0], 200)}") from error
    except OSError as error:
        raise DataUnavailable(f"{source} cannot be unpacked into {roots[-1]}: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone where all went well
            part.unlink()


def knock(url: str) -> str | None:
    """None if the mirror gives any answer within `ANSWER_S`, else why not.

    In a thread, as looking up a name has no time-out, and connecting has a new one for each address of a
    host.
    """
    import pooch

    outcome = [f"no answer within {ANSWER_S:g} s"]

    def head():
        try:
            pooch.HTTPDownloader(timeout=ANSWER_S)(url, None, None, check_only=True)
            outcome[0] = None
        except OSError as error:  # every error of requests is one
            outcome[0] = reason(error)

    thread = threading.Thread(target=head, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    return outcome[0]


def download(url: str, path: Path, md5: str) -> str | None:
    """Download to `path` with a progress bar; None, or why it failed, with nothing left behind."""
    import pooch
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    pooch.get_logger().setLevel("WARNING")  # its "Downloading ..." would land in the progress bar
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = Bar(progress, path.name)
            downloader = pooch.HTTPDownloader(bar, chunk_size=1 << 16, timeout=(ANSWER_S, STALL_S))
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=downloader)
    except (OSError, ValueError) as error:  # the network or the disk; pooch's wrong checksum
        return reason(error)
    return None


class Bar:
    """What pooch asks of a progress bar, drawn by rich. pooch sets `total`: bytes, 0 if unknown."""

    def __init__(self, progress, label: str):
        self.total, self.progress, self.task = 0, progress, progress.add_task(label, total=None)

    def update(self, size: int) -> None:
        """`size` more bytes have come."""
        self.progress.update(self.task, advance=size, total=self.total or None)

    def reset(self) -> None:
        """Back to 0 bytes, before pooch gives the exact number at the end."""
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        """Nothing: the display closes itself, also when a download fails."""


def reason(error: Exception) -> str:
    """The core of an error: requests wraps "Connection refused" in three layers of object names."""
    text = " ".join(str(error).split())
    errno = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return errno[1].strip(" :") if errno else text.split(". ")[0][:200]
