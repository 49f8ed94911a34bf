"""The built wheel, installed away from the source tree: its own conf/ is used, and wrong configs are told by it."""

import subprocess
import zipfile
from pathlib import Path

import commands
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as a file, and the folder that it is installed in."""
    folder = tmp_path_factory.mktemp("wheel")
    python = str(commands.BIN / "python")
    build = [python, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("aelab-*.whl")
    installed = folder / "installed"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(installed),
        str(file),
    ]
    subprocess.run(install, check=True, capture_output=True)
    # The marked choice is in the installed copy alone: who shows it cannot have read the source tree.
    (installed / "aelab" / "conf" / "model" / "only_here.yaml").write_text(
        "_target_: aelab.models.filters.Median\nsize: 5\n"
    )
    return file, installed


def run(wheel, *words, cwd):
    """The installed command, from another folder."""
    program = (str(commands.BIN / "python"), str(wheel[1] / "bin" / "aelab"))
    return commands.end(commands.start(*words, cwd=cwd, program=program, PYTHONPATH=str(wheel[1])))


def test_wheel_holds_the_package_and_every_config(wheel):
    with zipfile.ZipFile(wheel[0]) as archive:
        names = set(archive.namelist())
    configs = {f"aelab/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "aelab").rglob("*.py")}
    assert configs | modules <= names
    assert {name.split("/")[0] for name in names} == {"aelab", next(n for n in names if "dist-info" in n).split("/")[0]}


def test_installed_help_lists_the_installed_configs(wheel, tmp_path):
    result = run(wheel, "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "only_here" in result.stdout
    assert "unet_mini" in result.stdout


def test_installed_command_composes_the_installed_configs(wheel, tmp_path):
    result = run(wheel, "--cfg", "job", "model=only_here", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "size: 5" in result.stdout
    assert run(wheel, "--info", "searchpath", cwd=tmp_path).stdout.count(str(wheel[1] / "aelab" / "conf")) == 1


def test_installed_command_tells_a_wrong_config_in_one_line(wheel, tmp_path):
    result = run(wheel, "model=only_her", cwd=tmp_path)
    assert "model=only_her: no such model; there are: " in commands.complaint(result)
    assert "only_here" in result.stderr
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []
