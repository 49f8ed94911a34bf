"""Whatever happened to the files of a run folder, a command on it gives the right answer or one line, exit code 1."""

import json
import os
import re
import shutil
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from aelab import account, archive, callbacks, cli, compose, past, run_files
from aelab.config import AelabError
from aelab.data import catalogue

TASTE = ("dataset=taste_groups", "dataset.users=40", "dataset.items=25", "dataset.each=8", "task.at=[5]")
RUNS = {
    "denoise": ("task=denoise", "dataset=digits", "dataset.limit=40", "model=median", "model.size=3"),
    "forest": ("task=anomaly", "dataset=breast_cancer", "model=isolation_forest", "model.trees=5", "task.resamples=0"),
    "ease": ("task=recommend", *TASTE, "model=ease"),
    "other": ("task=recommend", *TASTE, "seed=1", "dataset.items=20", "dataset.users=35", "model=ease"),
}
"""Whole runs that train nothing."""
HARMS = ("cut", "emptied", "swapped", "folder", "pipe", "itself")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> folder of each run."""
    from aelab.run import run

    home, made = tmp_path_factory.mktemp("runs"), {}
    for name, words in RUNS.items():
        made[name] = home / name
        with compose.session():
            own = [*words, "tracking.uri=null", f"output_dir={home / 'outputs'}", f"hydra.run.dir={made[name]}"]
            job = compose.job(own, [compose.CONF], False)
        run(job, time.time())
    np.save(home / "images.npy", np.zeros((2, 28, 28), np.float32))
    columns = archive.read(made["forest"] / "detector.skops")["columns"].names
    lines = [",".join(columns), *(",".join(["1.5"] * len(columns)) for _ in range(3))]
    (home / "rows.csv").write_text("\n".join(lines) + "\n")
    return made


@pytest.fixture
def copy(runs, tmp_path):
    """A function that copies a run, as `older` ones are without digests, and gives its folder."""

    def copy(name, older=False):
        folder = shutil.copytree(runs[name], tmp_path / "copied" / name)
        if older:
            told = account.read(folder)
            (folder / run_files.NAME).write_text(json.dumps({k: v for k, v in told.items() if k != "files"}))
        return folder

    return copy


def command(name, folder, *more):
    """The words of the command that reads most of a run's files."""
    home, run = folder.parent, f"run={folder}"
    return {
        "denoise": ["evaluate", run],
        "forest": ["score", run, f"input={home.parent / 'rows.csv'}", f"output={home / 'scored.csv'}"],
        "ease": ["recommend", run, "user=1"],
    }[name] + list(more)


def line(call, *given, code=1):
    """The one line that a call complains with; a call that waits is interrupted."""

    def late(number, frame):
        raise TimeoutError("no end after 30 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    try:
        with pytest.raises(AelabError) as error:
            call(*given)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert error.value.code == code, error.value
    assert "\n" not in str(error.value)
    return str(error.value)


def outcome(call, *given):
    """What a call gives, or our error; any other is the test's."""
    try:
        return call(*given)
    except AelabError as error:
        return error


def harm(file, how, other):
    """Do to a file what happens to files."""
    whole = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "itself":
        file.symlink_to(file)
    else:
        file.write_bytes({"cut": whole[: len(whole) // 2], "emptied": b"", "swapped": other}[how])


FILES = {
    "denoise": ["config.yaml"],
    "forest": ["config.yaml", "detector.skops", "model.skops"],
    "ease": ["config.yaml", "items.parquet", "known.npz", "model.skops", "rated.npz", "users.parquet"],
}
SWAPS = {"denoise": "ease", "forest": "ease", "ease": "other"}


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in FILES.items() for file in files])
def test_a_harmed_file_is_one_line_that_names_it(runs, copy, name, file, how):
    folder, from_ = copy(name), runs[SWAPS[name]] / file
    shutil.copy(runs[name].parent / "rows.csv", folder.parents[1])
    if not from_.exists():  # the other run has none: any valid archive will do
        from_ = runs["forest"] / "model.skops"
    harm(folder / file, how, from_.read_bytes())
    said = line(cli.dispatch, command(name, folder))
    assert str(folder / file) in said
    assert "copy the run folder again" in said or "not there" in said


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_a_whole_folder_answers_with_and_without_digests(runs, copy, capsys, name, older):
    folder = copy(name, older)
    shutil.copy(runs[name].parent / "rows.csv", folder.parents[1])
    assert cli.dispatch(command(name, folder)) == 0
    if older:
        (folder / run_files.NAME).unlink()
        assert cli.dispatch(command(name, folder)) == 0


def test_a_file_that_the_run_did_not_write_is_not_taken(runs, copy):
    folder = copy("denoise")
    shutil.copy(runs["ease"] / "model.skops", folder)
    assert f"{folder / 'model.skops'}: is not whole, or not the one" in line(cli.dispatch, command("denoise", folder))


@pytest.mark.parametrize("text", ["", "[1]", "null", "3", '"x"', "{", "[" * 3000 + "]" * 3000, '{"files": [1]}'])
def test_a_broken_account_is_one_line(copy, text):
    folder = copy("ease")
    told = account.read(folder)
    (folder / run_files.NAME).write_text(text if "files" not in text else json.dumps(told | {"files": [1]}))
    assert str(folder / run_files.NAME) in line(cli.dispatch, command("ease", folder))


def test_metrics_of_another_run_are_not_taken(runs, copy):
    folder = copy("ease")
    shutil.copy(runs["other"] / "metrics.json", folder)
    assert f"{folder / 'metrics.json'}: is not whole, or not the one" in line(account.read, folder, "metrics.json")


def test_a_component_that_is_no_longer_there_is_the_words_error(copy, monkeypatch):
    """A run with somebody's package, read without `allow=[...]`: its file is as it was written."""
    folder = copy("ease")
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("aelab.models.rankers.Ease", "mine.models.Ease"))
    said = line(past.config, folder, [], [])
    assert "mine.models.Ease" in said
    assert said.endswith("copy the run folder again")
    account.note(folder, files=run_files.digests(folder))
    assert "mine.models.Ease" in line(past.config, folder, [], [], code=2)


def test_only_a_finished_run_has_digests(copy):
    folder = copy("ease")
    account.note(folder, status="KILLED")
    (folder / "scale.npy").write_bytes(b"")
    assert run_files.intact(folder / "scale.npy")
    account.note(folder, status="FINISHED")
    line(run_files.intact, folder / "scale.npy")


# ---- config.yaml


def change(key, value):
    """A function that sets or, with `...`, removes a dotted key of a plain config."""

    def changed(plain):
        *parents, last = key.split(".")
        node = plain
        for name in parents:
            node = node[name]
        if value is ...:
            del node[last]
        else:
            node[last] = value
        return plain

    return changed


KEYS = ("choices", "dataset", "fit", "fit.epochs", "loss", "metric", "model", "model.l2", "seed", "task", "tracking")


@pytest.mark.parametrize("value", [..., None, -3, "zz", [1], {"a": 1}], ids=str)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("older", [False, True])
def test_a_config_with_other_values_is_one_line(copy, key, value, older):
    folder = copy("ease", older)
    plain = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(change(key, value)(plain), sort_keys=False))
    error = outcome(past.config, folder, [], [])
    if isinstance(error, AelabError):
        assert error.code == 1
        assert str(folder / "config.yaml") in str(error)
    else:  # it is another run's config, and a good one
        assert older
        assert (key, value) in [("metric", None), ("metric", ...), ("loss", None), ("loss", ...)]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b]\n"


@pytest.mark.parametrize(
    "text",
    ["3", "null", "[1, 2]", "x", "a: [", "!!set {a}", "a: !!set {b}", "? [a]\n: b", BOMB, "a: " + "[" * 9000, "a: \0"],
    ids=range(11),
)
def test_a_config_that_is_no_config_is_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert str(tmp_path / "config.yaml") in line(account.config, tmp_path)


def test_a_config_of_an_interpolation_that_leads_nowhere_is_one_line(copy):
    folder = copy("ease", older=True)
    text = (folder / "config.yaml").read_text().replace("seed: 0", "seed: ${nothing}")
    (folder / "config.yaml").write_text(text)
    assert "has a ${...} in it" in line(past.config, folder, [], [])


def test_a_text_without_end_is_not_read(tmp_path):
    (tmp_path / "config.yaml").touch()
    os.truncate(tmp_path / "config.yaml", 1 << 40)
    assert "expected at most 67,108,864 bytes" in line(account.config, tmp_path)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    assert "expected a file, got a pipe, device" in line(account.config, tmp_path)


def test_what_the_user_types_wrong_stays_his_own_error(copy):
    folder = copy("ease")
    said = line(past.config, folder, ["model.l3=1"], [], code=2)
    assert said.startswith("model.l3: unknown; there are: ")


def test_words_are_what_was_typed(tmp_path):
    (tmp_path / "overrides.yaml").write_text("- path=${data_dir}/a.csv\n- seed=1\n")
    assert account.words(tmp_path) == ["path=${data_dir}/a.csv", "seed=1"]


@pytest.mark.parametrize("key", ["task", "experiment", "positive"])  # of choices, tracking, task
@pytest.mark.parametrize("value", ["${nothing}", "???", "${oc.env:NOTHING}"])
def test_a_config_with_open_values_is_one_line(copy, key, value):
    folder = copy("ease", older=True)
    text = (folder / "config.yaml").read_text()
    spoilt = re.sub(rf"^  {key}: .*$", f"  {key}: {value}", text, count=1, flags=re.MULTILINE)
    assert spoilt != text
    (folder / "config.yaml").write_text(spoilt)
    assert str(folder / "config.yaml") in line(past.config, folder, [], [])


@pytest.mark.parametrize("text", ["a: 1", "- 1", "- [a]", "3"])
def test_overrides_of_another_type_are_one_line(tmp_path, text):
    (tmp_path / "overrides.yaml").write_text(text)
    assert str(tmp_path / "overrides.yaml") in line(account.words, tmp_path)


# ---- what libraries read, of older runs


def header(shape, dtype="<f4"):
    """The beginning of a .npy file that declares any shape."""
    import io

    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + b"\0" * 64


ARRAYS = {
    "huge": header((10**13,)),
    "overflow": header((10**18, 10**18)),
    "negative": header((-5,)),
    "objects": header((2,), "|O"),
    "texts": header((2,), "<U2"),
    "short": header((1000,)),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "nan": header((2,)).replace(b"\0" * 8, b"\xff" * 8),
    "empty": b"",
    "a zip": b"PK\x03\x04",
}


@pytest.mark.parametrize("how", ARRAYS)
def test_arrays_are_read_as_they_should_be_or_not_at_all(copy, how):
    folder = copy("ease", older=True)
    (folder / "vectors.npy").write_bytes(ARRAYS[how])
    assert str(folder / "vectors.npy") in line(catalogue.vectors, folder)


def repacked(file, change):
    """Write a zip anew, with some of its members changed: name -> content, None takes it out."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in (members | change).items():
            if content is not None:
                new.writestr(name, content)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("indices.npy", None),
        ("shape.npy", None),
        ("format.npy", None),
        ("indices.npy", b"no array"),
        ("indices.npy", header((10**13,), "<i4")),
        ("data.npy", header((2,), "|O")),
        ("shape.npy", header((2,), "|O")),
        ("indptr.npy", ARRAYS["negative"]),
        ("indices.npy", "far"),
    ],
)
def test_sparse_matrices_are_read_as_they_should_be_or_not_at_all(copy, member, content):
    folder = copy("ease", older=True)
    file = folder / "known.npz"
    if content == "far":  # indices outside of the matrix: a product would read memory that is not its own
        import io

        out = io.BytesIO()
        np.save(out, np.full_like(np.load(file)["indices"], 10**6))
        content = out.getvalue()
    repacked(file, {member: content})
    assert str(file) in line(catalogue.matrix, folder, "known")


def test_files_of_another_catalogue_do_not_fit(runs, copy):
    folder = copy("ease", older=True)
    for file in ("known.npz", "items.parquet"):
        kept = (folder / file).read_bytes()
        shutil.copy(runs["other"] / file, folder)
        assert "does not fit the users and items of the run" in line(catalogue.matrix, folder, "known")
        (folder / file).write_bytes(kept)
    np.save(folder / "scale.npy", np.array([5.0, 1.0]))
    assert "expected the lowest and the highest rating" in line(catalogue.read, folder)


@pytest.mark.parametrize("spoil", ["no id", "numbers", "twice", "empty"])
def test_a_frame_has_an_id_in_each_row(copy, spoil):
    folder = copy("ease", older=True)
    frame = catalogue.frame(folder, "items")
    spoilt = {
        "no id": frame.rename(columns={"id": "name"}),
        "numbers": frame.assign(id=range(len(frame))),
        "twice": frame.assign(id="1"),
        "empty": frame.iloc[:0],
    }[spoil]
    spoilt.to_parquet(folder / "items.parquet")
    assert "expected a row with an id for each of the items" in line(catalogue.frame, folder, "items")


def schemas(text):
    """A schema of skops, spoilt in each of some ways."""
    whole = json.loads(text)
    yield from (b"", b"[1]", b"null", b"{}", b"[" * 100_000)
    for key in whole:
        yield json.dumps({k: v for k, v in whole.items() if k != key}).encode()
        for value in (None, 7, [1], {"a": 1}, "zz"):
            if key not in ("protocol", "_skops_version"):
                yield json.dumps(whole | {key: value}).encode()


def test_an_archive_is_read_as_it_should_be_or_not_at_all(tmp_path):
    whole = tmp_path / "whole.skops"
    archive.write({"counts": np.arange(3), "names": ["a"]}, whole)
    with zipfile.ZipFile(whole) as opened:
        schema = opened.read("schema.json")
        arrays = [name for name in opened.namelist() if name.endswith(".npy")]
    for content in schemas(schema):
        file = tmp_path / "spoilt.skops"
        shutil.copy(whole, file)
        repacked(file, {"schema.json": content})
        error = outcome(archive.read, file)
        if isinstance(error, AelabError):  # some keys are of no consequence
            assert str(file) in str(error)
            assert "\n" not in str(error)
    for content in (None, b"", header((10**13,)), header((2,), "|O")):
        shutil.copy(whole, file)
        repacked(file, {arrays[0]: content})
        assert str(file) in line(archive.read, file)
    assert "expected a fitted model, got a dict" in line(archive.model, whole)


def test_a_detector_that_is_no_detector_is_one_line(copy):
    from aelab.tasks.anomaly import Anomaly

    folder = copy("forest", older=True)
    shutil.copy(folder / "model.skops", folder / "detector.skops")
    task = Anomaly(resamples=0, confidence=0.9, strangest=1)
    assert "expected preparation, columns" in line(task.recall, folder)


@pytest.fixture
def network(keras, tmp_path):
    """The file of a small model."""
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_a_model_is_read_as_it_should_be_or_not_at_all(network):
    from aelab import backend

    whole = network.read_bytes()
    with zipfile.ZipFile(network) as opened:
        config = opened.read("config.json").decode()
    spoilt = [
        {"config.json": None},
        {"model.weights.h5": None},
        {"model.weights.h5": b""},
        {"model.weights.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 200},
        *({"config.json": text.encode()} for text in ("", "[1]", "null", "{}", "7", "[" * 100_000)),
        {"config.json": config.replace('"Dense"', '"Dance"').encode()},
        {"config.json": config.replace('"units": 2', '"units": null').encode()},
        {"config.json": config.replace('"units": 2', '"units": 3').encode()},
        {"config.json": config.replace('"layers": [', '"layers": 3, "x": [').encode()},
        {"config.json": config.replace('"inbound_nodes": [', '"inbound_nodes": [7, ').encode()},
    ]
    for change_ in spoilt:
        network.write_bytes(whole)
        repacked(network, change_)
        assert str(network) in line(backend.restored, network)
    network.write_bytes(whole)
    assert backend.restored(network).count_params() == 10


# ---- a checkpoint


@pytest.mark.parametrize(
    "facts",
    [
        *("[1]", "null", "{}", "[" * 5000),
        '{"epoch": -1, "seconds": 1, "rows": []}',
        '{"epoch": 1, "seconds": 1, "rows": [3]}',
        '{"epoch": 1, "seconds": 1, "rows": [{"epoch": 1, "val/loss": "low"}]}',
        '{"epoch": 1, "seconds": 1, "rows": [], "best weights": 1}',
    ],
)
def test_a_checkpoint_of_other_facts_is_one_line(tmp_path, facts):
    file = tmp_path / callbacks.FILE
    np.savez(file, facts=facts)
    assert "delete it to start this run from its beginning" in line(callbacks.read, file)


def test_a_checkpoint_of_another_model_is_one_line(keras, tmp_path):
    def network(width):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width)])
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        return model

    file = tmp_path / callbacks.FILE
    kept = callbacks.Checkpoint(file, [], None, None)
    kept.set_model(network(2))
    kept.on_train_begin()
    kept.on_epoch_end(0)
    for width in (2, 5):
        again = callbacks.Checkpoint(file, [], None, callbacks.read(file))
        again.set_model(network(width))
        if width == 2:
            again.on_train_begin()
        else:
            assert f"{file}: is of another model" in line(again.on_train_begin)


def test_a_log_that_is_a_pipe_is_not_waited_for(copy):
    from aelab import run

    folder = copy("ease")
    cfg = account.config(folder)
    (folder / "run.log").unlink()
    os.mkfifo(folder / "run.log")
    assert cli.dispatch(command("ease", folder)) == 0  # needs no log
    with pytest.raises(AelabError, match="expected a file, got a pipe"), run.logged(folder, cfg, []):
        pytest.fail("has begun")
    assert Path(folder / "config.yaml").exists()
    assert OmegaConf.load(folder / "config.yaml").choices.model == "ease"


def test_a_librarys_words_for_its_classes_are_made_names(tmp_path):
    error = "x: cannot be read: TypeError: keras.Model could not be; copy"
    with pytest.raises(AelabError, match=re.escape(error)), run_files.broken(tmp_path / "x", TypeError):
        raise TypeError("<class 'keras.Model'> could not be\nmore")
