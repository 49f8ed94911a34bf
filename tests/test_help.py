"""The help text names all that there is: it is read from conf/ and from the sources."""

import functools
import io

import pytest
from rich.console import Console

from aelab import cli, compose, declared, grid, help
from aelab.compose import CONF
from aelab.config import ConfigError


@pytest.fixture
def shown(monkeypatch):
    """The words of `aelab --help`, at the width of the narrowest terminal that one can expect."""

    def show(dirs=(CONF,), task=None):
        page = io.StringIO()
        monkeypatch.setattr(help, "Console", functools.partial(Console, file=page, width=80))
        help.show(list(dirs), task)
        return page.getvalue()

    return show


def test_names_every_task_with_the_models_and_data_sets_that_fit(shown):
    words = " ".join(shown().split())
    assert words.count("task=NAME") == 1
    for name, file in compose.choices("task", [CONF]).items():
        kinds = declared.kinds("task", compose.target(file))
        fit = {group: ", ".join(compose.fitting(group, kinds, [CONF])) for group in ("model", "dataset")}
        said = " ".join(declared.summary(compose.target(file)).split())
        assert f"task={name} {said} model= {fit['model']} dataset= {fit['dataset']}" in words


@pytest.mark.parametrize("task", compose.choices("task", [CONF]))
def test_of_a_task_says_what_fits_and_its_knobs(shown, task):
    text = shown(task=task)
    first, words = [line.split()[:1] for line in text.splitlines()], " ".join(text.split())
    target = compose.target(compose.choices("task", [CONF])[task])
    for group in ("model", "dataset", "loss", "metric", *(declared.class_value(target, "needs") or ())):
        files = compose.choices(group, [CONF])
        for choice in compose.fitting(group, declared.kinds("task", target), [CONF]):
            assert [choice] in first, choice
            assert ", ".join(declared.signature(compose.target(files[choice])).knobs) in words


def test_of_a_task_that_is_not_there(shown):
    with pytest.raises(ConfigError, match=r"^task=denoize: no such task; there are: anomaly, "):
        shown(task="denoize")


@pytest.mark.parametrize(
    "group", [g for g in compose.groups([CONF]) if g not in ("task", "model", "dataset", "tracking")]
)
def test_names_every_other_choice(shown, group):
    words = " ".join(shown().split())
    choices = ", ".join(compose.choices(group, [CONF])) or "none yet"
    assert f"{group}= {choices}" in words


def test_names_every_command(shown):
    words = " ".join(shown().split())
    for command in cli.COMMANDS:
        assert f"aelab {command}" in words


def test_every_choice_says_what_it_is(shown):
    """No component without the sentence that the help text shows."""
    for group in ("task", "model", "dataset"):
        for name, file in compose.choices(group, [CONF]).items():
            assert declared.summary(compose.target(file)).endswith((".", '"code".')), name
            assert help.about(file).split(" [dim]")[0].endswith("."), name


def test_the_examples_are_right():
    """Each command of the help text that trains composes and passes the check."""
    commands = [command for command, _ in help.EXAMPLES if command.split()[1] not in cli.COMMANDS]
    assert len(commands) >= 2
    for command in commands:
        overrides, extra, multirun = cli.split_flags(command.split()[1:])
        with compose.session():
            jobs = grid.jobs(overrides, compose.folders(extra)) if multirun else [overrides]
            assert len(jobs) in (1, 9)  # "nine runs under one parent"
            compose.compose(jobs[-1], [CONF])


def test_shows_a_users_own_choices(shown, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "my_net.yaml").write_text("_target_: aelab.models.conv.conv_ae\nbottleneck: 3\nwidths: [4]\n")
    text = shown([tmp_path, CONF])
    assert "my_net" in text
    assert "unet_mini" in text
