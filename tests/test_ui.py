"""`aelab ui` for real, looked at with a real browser: a sweep is found, opened and compared.

AELAB_SCREENSHOTS=DIR makes the same tests write pictures for the documentation, of a sweep that is worth looking at.
"""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import commands
import pytest

pytestmark = pytest.mark.browser
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SHOW = os.environ.get("AELAB_SCREENSHOTS")
WORTH_SEEING = [
    *("-m", "model=conv_ae,unet_mini", "corruption.level=0.1,0.2,0.4"),
    *("dataset=fashion_mnist", "dataset.limit=10000", "fit.epochs=4"),
]


@pytest.fixture(scope="module")
def page():
    """A page of headless Chromium, 1400 pixels wide."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        why = "no chromium on the PATH; install it with: apt-get install -y chromium"
        (pytest.fail if os.environ.get("AELAB_REQUIRE_BROWSER") == "1" else pytest.skip)(why)
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        opened = browser.new_page(viewport={"width": 1400, "height": 720})
        opened.set_default_timeout(60_000)
        closed = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
        opened.add_init_script(closed)  # MLflow opens a chat beside everything else on the first visit
        yield opened
        browser.close()


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    """The folder of a sweep made by the real command."""
    if SHOW:
        data = os.environ["AELAB_DATA_DIR"]
        folder = tmp_path_factory.mktemp("shown")
        commands.done(*WORTH_SEEING, cwd=folder, AELAB_DATA_DIR=data)
        return folder
    return commands.swept(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def site(cwd):
    """Address of a real `aelab ui`, taken from what it prints; ended as a user ends it."""
    port = commands.free_port()
    process = commands.start("ui", f"port={port}", cwd=cwd)
    line = process.stdout.readline()
    assert line.startswith(f"MLflow UI on http://127.0.0.1:{port}/")
    commands.wait_for(lambda: commands.answers(port), "aelab ui")
    yield line.split()[3]
    process.send_signal(signal.SIGINT)
    assert commands.end(process, 60).returncode == 130
    assert not commands.answers(port)


@pytest.fixture(scope="module")
def runs(cwd):
    """(parent, children), the best child first."""
    found = commands.runs(commands.client(cwd))
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in found if run is not parent]
    return parent, sorted(children, key=lambda run: -run.data.metrics["test/psnr_gain"])


def address(site: str, path: str) -> str:
    """Another page of the same site."""
    root, _, query = site.partition("#")
    return f"{root}#/{path}{'&' if '?' in path else '?'}{query.partition('?')[2]}"


def expand(page, parent) -> None:
    """Show the children of a sweep."""
    row = page.get_by_role("row").filter(has_text=parent.info.run_name)
    row.get_by_role("button").first.click()


def picture(page, name: str) -> None:
    """A screenshot, where one is asked for."""
    if SHOW:
        page.mouse.move(700, 700)
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(SHOW) / f"{name}.png")


def test_experiment_page_lists_parent_and_children_with_their_metrics(page, site, runs):
    parent, children = runs
    page.goto(site)
    page.get_by_role("link", name="aelab-denoise").first.wait_for()
    page.get_by_role("link", name=parent.info.run_name).wait_for()
    names = re.compile("|".join({run.info.run_name for run in children}))
    assert page.get_by_role("link", name=names).count() == 0
    expand(page, parent)
    page.get_by_role("link", name=names).first.wait_for()
    assert page.get_by_role("link", name=names).count() == len(children)

    page.get_by_role("button", name="Columns").click()
    columns = page.get_by_test_id("column-selector-tree").locator(".du-bois-light-tree-title")
    for column in ("Dataset", "Source", "Models", "model", "corruption.level", "test/psnr", "test/ssim"):
        page.get_by_placeholder("Search columns").fill(column)
        columns.filter(has_text=re.compile(f"^{column}$")).click()
    page.keyboard.press("Escape")
    for run in children:
        page.get_by_role("gridcell").get_by_text(str(run.data.metrics["test/psnr"])[:5]).first.wait_for()
    picture(page, "runs")


def test_run_page_shows_the_run(page, site, runs):
    run = runs[1][0]
    page.goto(address(site, f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"))
    page.get_by_role("heading", name=run.info.run_name).wait_for()
    page.get_by_text("Finished", exact=True).wait_for()
    page.get_by_role("link", name=runs[0].info.run_name).wait_for()
    page.get_by_placeholder("Search metrics").fill("test/")
    page.get_by_text(str(run.data.metrics["test/psnr"])[:8]).first.wait_for()
    page.get_by_text("corruption.gaussian.level", exact=True).wait_for(state="attached")
    picture(page, "run")


def test_picture_artifact_is_drawn(page, site, runs):
    run = runs[1][0]
    page.goto(address(site, f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"))
    page.get_by_text("examples.png").first.click()
    drawn = page.locator("img[src^='blob:']").first
    drawn.wait_for()
    page.wait_for_function("document.querySelector(\"img[src^='blob:']\").naturalWidth > 800")
    assert drawn.bounding_box()["width"] > 400
    for name in ("config.yaml", "metrics.json", "report.html"):
        assert page.get_by_text(name).first.is_visible()
    picture(page, "examples")


def test_compare_page_and_charts(page, site, runs):
    parent, children = runs
    ids, experiment = [run.info.run_id for run in children], parent.info.experiment_id
    compared = f"compare-runs?runs={quote(json.dumps(ids))}&experiments={quote(json.dumps([experiment]))}"
    page.goto(address(site, compared))
    page.get_by_text(f"Comparing {len(children)} Runs from 1 Experiment").wait_for()
    for name in ("model.bottleneck", "corruption.gaussian.level"):
        page.get_by_text(name).first.wait_for()
    picture(page, "compare")

    page.goto(address(site, f"experiments/{experiment}/runs?compareRunsMode=CHART"))
    page.get_by_role("link", name=re.compile("^denoise-")).or_(
        page.get_by_role("link", name=parent.info.run_name)
    ).first.wait_for()
    if not page.get_by_role("link", name=re.compile("^denoise-")).count():
        expand(page, parent)
    page.get_by_placeholder("Search metric charts").fill("test/psnr")
    page.get_by_text("test/psnr_gain", exact=True).first.wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    picture(page, "charts")
