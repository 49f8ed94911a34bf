"""What a finished run shows as tables and as one self-contained HTML page."""

import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from aelab.config import PARTS
from aelab.figures import DPI, number

PNG_LIMIT = 300_000  # bytes
COLUMNS = ["output", "validation", *PARTS]


def metric_table(metrics: dict[str, float], /) -> pd.DataFrame:
    """Flat test metrics as a table: a row per metric, columns as in `COLUMNS`, NaN where absent.

    `test/psnr`, `test/psnr_input`, `test/psnr_gain` make the row "psnr", `val/psnr` its "validation"; other names are
    left out.
    A name that only ends so (`test/information_gain` without `test/information`) is a metric of its own.
    """
    flat = {name.removeprefix("test/"): value for name, value in metrics.items() if name.startswith("test/")}
    table = pd.DataFrame(columns=COLUMNS, dtype=float)
    for name, value in flat.items():
        base, _, column = name.rpartition("_")
        part = column in PARTS and base in flat
        table.loc[base if part else name, column if part else "output"] = value
    for name in flat:
        table.loc[table.index == name, "validation"] = metrics.get(f"val/{name}")
    return table.rename_axis("metric")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns beside "output" that are empty."""
    return table.drop(columns=[c for c in COLUMNS[1:] if c in table and table[c].isna().all()])


def terminal_table(metrics: dict[str, float], /) -> Table:
    """`metric_table` for the terminal."""
    data = _shown(metric_table(metrics))
    table = Table("metric")
    for column in data:
        table.add_column(column, justify="right")
    for name, row in data.iterrows():
        table.add_row(*(Text(number(x)) for x in (name, *row)))  # Text: "[...]" in a name is no markup
    return table


STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --muted: #5b6575; --line: #dce1e8; --page: #f5f6f8;
  --card: #fff; --loud: #7a2e00; --loud-page: #ffe9d6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --muted: #a0a9b8; --line: #333b48;
  --page: #12161d; --card: #1b212b; --loud: #ffd9b8; --loud-page: #43230d } }
* { box-sizing: border-box; margin: 0 }
body { padding: 1.5rem clamp(.75rem, 3vw, 2.5rem); background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
main { max-width: 1240px; margin: auto } h1 { font-size: 1.7rem; line-height: 1.25 }
h2 { margin: 1.8rem 0 .6rem; font-size: 1.1rem } header { margin-bottom: 1rem }
header p, dt, figcaption, thead th { color: var(--muted) } dt, figcaption, thead th { font-size: .85rem }
.notice { margin: .5rem 0; padding: .6rem .9rem; color: var(--loud); background: var(--loud-page);
  border-left: .35rem solid #d55e00; border-radius: .3rem; font-weight: 600 }
.card { padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem }
.cards { display: flex; flex-wrap: wrap; gap: .6rem } .cards .card { min-width: 7rem }
dd { font-size: 1.4rem; font-weight: 650 } summary { cursor: pointer }
.flow { display: flex; flex-wrap: wrap; gap: 1rem; align-items: start } .flow > * { max-width: 100% }
.scroll { overflow-x: auto } img { display: block; max-width: 100%; height: auto; border-radius: .3rem }
figcaption { margin-top: .5rem; contain: inline-size } figcaption b { color: var(--ink) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { padding-bottom: .3rem; text-align: left; font-weight: 650 }
th, td { padding: .25rem 1.2rem .25rem 0; text-align: left; font-weight: 400 }
tr + tr > * { border-top: 1px solid var(--line) }
td { white-space: pre-line } .number { text-align: right; padding-left: 1rem }
th, .number { overflow-wrap: normal } tr > :last-child { padding-right: 0 }
pre { margin: .6rem 0 0; white-space: pre-wrap; font: .85rem ui-monospace, monospace }
@media print { body { padding: 0 } figure, tr { break-inside: avoid } h2 { break-after: avoid }
  details::details-content { content-visibility: visible } }
"""


class _Html(str):
    """Markup. Any other text is escaped when it is put into an element, so that none can be forgotten."""


def _el(tag: str, /, *children: object, **attributes: object) -> _Html:
    inside = "".join(c if isinstance(c, _Html) else escape(str(c)) for c in children)
    given = "".join(f' {name.strip("_")}="{escape(str(value))}"' for name, value in attributes.items())
    return _Html(f"<{tag}{given}>{inside}" + ("" if tag in ("img", "meta") else f"</{tag}>"))


def _table(table: pd.DataFrame, caption: str = "") -> _Html:
    """`table` with its index as row headers; without a caption, it has no column headers either."""
    table = _shown(table)
    kinds = ["number" if pd.api.types.is_numeric_dtype(t) else "text" for t in table.dtypes]
    names = (_el("th", name, class_=kind) for name, kind in zip(table, kinds, strict=True))
    head = _el("thead", _el("tr", _el("th", table.index.name or ""), *names))
    lines = []
    for name, *row in table.itertuples():
        cells = (_el("td", number(x), class_=kind) for x, kind in zip(row, kinds, strict=True))
        lines.append(_el("tr", _el("th", number(name), scope="row"), *cells))
    parts = (_el("caption", caption), head) if caption else ()
    return _el("div", _el("table", *parts, _el("tbody", *lines)), class_="card scroll")


def _picture(path: Path, name: str, figure: Figure) -> _Html:
    """Saves `figure` at `path`, as sharp as the limit of its size allows, and shows it."""
    for dpi in (DPI, DPI * 3 // 4, DPI // 2):
        png = BytesIO()
        figure.savefig(png, format="png", dpi=dpi, facecolor="white")
        if png.tell() <= PNG_LIMIT:
            break
    path.write_bytes(png.getvalue())
    wide, high = (round(96 * inches) for inches in figure.get_size_inches())
    told = figure.get_label() or name
    source = "data:image/png;base64," + b64encode(png.getvalue()).decode()
    # On a narrow screen a picture shrinks only as far as its letters can be read, and then scrolls.
    limits = f"min-width: {0.65 * wide:.0f}px"
    picture = _el("img", src=source, alt=told, width=wide, height=high, style=limits)
    caption = _el("figcaption", _el("b", name), " ", told)
    return _el("figure", _el("div", picture, class_="scroll"), caption, class_="card")


def write(
    folder: Path,
    /,
    *,
    title: str,
    subtitle: str,
    summary: dict[str, float | str],
    tables: dict[str, pd.DataFrame],
    figures: dict[str, Figure],
    facts: dict[str, str],
    config: str,
    notices: Sequence[str],
) -> Path:
    """Writes `report.html` and each figure as `<name>.png` into `folder`; returns the page's path.

    The page needs nothing but itself: pictures are data URIs, and its policy forbids scripts and requests.
    The same input gives the same bytes.

    Args:
        summary: the headline values, shown as cards.
        tables: caption -> table; None and NaN are shown as a dash, numbers with 4 significant digits.
        figures: file name -> figure; anything but letters, digits, "_", "." and "-" is written as "_".
        facts: versions, git revision, fingerprints, times.
        config: the resolved config, as text.
        notices: what the reader must know before believing a number, such as fallback data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cards = (_el("div", _el("dt", k), _el("dd", number(v)), class_="card") for k, v in summary.items())
    files = {name: folder / (re.sub(r"[^\w.-]", "_", name) + ".png") for name in figures}
    parts = {
        "Results": [_el("dl", *cards, class_="cards")] if summary else [],
        "Tables": [_table(table, name) for name, table in tables.items()],
        "Figures": [_picture(files[name], name, figure) for name, figure in figures.items()],
        "About this run": [_table(pd.DataFrame({"": facts}, dtype=object))] if facts else [],
        "Config": [_el("details", _el("summary", "Show the resolved config"), _el("pre", config), class_="card")],
    }
    main = [_el("header", _el("h1", title), _el("p", subtitle))]
    main += [_el("p", text, class_="notice", role="alert") for text in notices]
    main += [_el("section", _el("h2", k), _el("div", *part, class_="flow")) for k, part in parts.items() if part]
    policy = {"http-equiv": "Content-Security-Policy"}
    head = (
        _el("meta", charset="utf-8"),
        _el("meta", content="default-src 'none'; img-src data:; style-src 'unsafe-inline'", **policy),
        _el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _el("title", title),
        _el("style", _Html(STYLE)),
    )
    page = _el("html", _el("head", *head), _el("body", _el("main", *main)), lang="en")
    path = folder / "report.html"
    # A file name that is no UTF-8 reaches us as lone surrogates: these must not cost the report.
    path.write_text(f"<!DOCTYPE html>\n{page}\n", "utf-8", errors="xmlcharrefreplace", newline="\n")
    return path
