"""The documents do what they say: the worked example runs, and every error that is shown comes out as shown."""

import json
import re
import shlex
from pathlib import Path

import commands
import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("errors.md", "security.md"))
ERRORS = re.findall(r"^    \$ (.+)\n    (aelab: .+)$", PAGES, re.MULTILINE)


@pytest.mark.parametrize(("line", "said"), ERRORS, ids=[line for line, _ in ERRORS])
def test_errors_come_out_as_shown(line, said, tmp_path):
    words = shlex.split(line)
    env = dict(w.split("=", 1) for w in words[: words.index("aelab")])
    done = commands.run(*words[words.index("aelab") + 1 :], cwd=tmp_path, **env)
    assert done.returncode in (1, 2)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert re.fullmatch(".*".join(map(re.escape, said.split("..."))), lines[0])


def test_every_error_of_the_page_is_read():
    assert len(ERRORS) >= 17


def test_the_worked_example_adds_a_model_from_outside(tmp_path):
    files = re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", GUIDE, re.DOTALL)
    assert [name for name, _ in files] == ["lab/models.py", "conf/model/tiny_ae.yaml"]
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (line,) = re.findall(r"```sh\naelab (.*)\n```", GUIDE)

    done = commands.run(*line.split(), "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/psnr"] > 5
    assert "tiny_ae" in commands.run("--help", cwd=tmp_path).stdout
    typo = commands.run("allow=[lab]", "model=tiny_ae", "model.kode=3", cwd=tmp_path)
    assert "model.kode: unknown; did you mean code?" in typo.stderr
    untrusted = commands.run("model=tiny_ae", cwd=tmp_path)
    assert untrusted.returncode == 2
    assert "allow=[lab]" in untrusted.stderr


def test_what_the_guide_names_exists():
    for group, names in re.findall(r"`(\w+)=([\w\\|]+)`", GUIDE):
        folder = ROOT / "conf" / group
        if folder.is_dir():
            for name in re.split(r"\\?\|", names):
                assert (folder / f"{name}.yaml").exists() or name == "tiny_ae", f"{group}={name}"
    for link in re.findall(r"\]\(([^)#:]+)\)", GUIDE + (ROOT / "README.md").read_text().replace("](docs/", "](")):
        assert (ROOT / "docs" / link).exists() or (ROOT / link).exists(), link
