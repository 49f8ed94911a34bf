"""The wheel carries conf/, and aelab works from it in any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as the wheel installs it: built from the tree, unpacked as pip does."""
    here = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(
        ROOT, here / "source", ignore=shutil.ignore_patterns(".venv", ".git", "outputs", "__pycache__", ".*_cache")
    )
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(here)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = here.glob("aelab-*.whl")
    target = here / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    shutil.rmtree(source)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert f"aelab/conf/{file.relative_to(ROOT / 'conf')}" in names
    return target


def aelab(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    program = "import aelab.cli, aelab.compose, sys; print(aelab.compose.CONF); aelab.cli.main(sys.argv[1:])"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AELAB_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env=env | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_its_own_configs_are_used_from_any_folder(installed, tmp_path):
    shown = aelab(installed, tmp_path, "--cfg", "job", "model=conv_ae", "model.bottleneck=7")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(str(installed / "aelab" / "conf"))
    assert "bottleneck: 7" in shown.stdout
    assert "conv_ae" in aelab(installed, tmp_path, "--help").stdout
    wrong = aelab(installed, tmp_path, "model=unet_mny")
    assert wrong.returncode == 2
    assert "no such model" in wrong.stderr


def test_it_trains(installed, tmp_path):
    done = aelab(
        installed, tmp_path, "dataset=digits", "debug=fast", "fit.epochs=1", "model.width=4", "hydra.run.dir=r"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "report.html").exists()
    assert (tmp_path / "outputs" / "mlflow.db").exists()
