"""`aelab doctor` looks and counts; it neither loads nor downloads, and what is broken is a row."""

from types import SimpleNamespace

import commands
import pytest
import test_check
from omegaconf import OmegaConf

from aelab import compose, services
from aelab.data import fetch


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A function that gives a config with some words, of somebody who has no data and no network."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AELAB_DATA_DIR", raising=False)
    for name in ("knock", "download"):
        monkeypatch.setattr(fetch, name, lambda *given: pytest.fail("doctor downloads"))
    return lambda *words: test_check.composed(f"output_dir={tmp_path / 'outputs'}", *words)[0]


class Page(list):
    """What MLflow gives for a search."""

    token = None


def stub(experiments, runs, size):
    """A client that has some runs in each experiment, and gives them in pages."""

    def pages(everything):
        def search(ids=None, page_token=None, max_results=None):
            first = int(page_token or 0)
            page = Page(everything[first : first + size])
            page.token = str(first + size) if first + size < len(everything) else None
            return page

        return search

    found = [SimpleNamespace(info=SimpleNamespace(status=status)) for status in runs]
    return SimpleNamespace(
        search_experiments=pages([SimpleNamespace(experiment_id=str(i)) for i in range(experiments)]),
        search_runs=pages(found),
    )


def test_runs_are_counted_to_the_last_page():
    runs = ["FINISHED"] * 7012 + ["FAILED"] * 3
    assert services.count(stub(3, runs, 1000)) == {"FAILED": 3, "FINISHED": 7012}
    assert services.count(stub(3, [], 1000)) == {}
    assert services.count(stub(0, [], 1000)) == {}


def test_a_store_is_not_made_by_looking(cfg, tmp_path):
    _, said, fine = services.store(cfg())
    assert said.endswith("outputs/mlflow.db: not there yet; the first run makes it")
    assert fine
    assert not (tmp_path / "outputs").exists()


def test_a_broken_store_is_a_row(cfg, tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mlflow.db").write_bytes(b"no database, but more than a hundred bytes of something" * 40)
    _, said, fine = services.store(cfg())
    assert said.startswith("BROKEN: ")
    assert not fine


def test_a_server_that_does_not_answer_is_a_row_without_a_password(cfg, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := "http://me:secret@127.0.0.1:9")
    _, said, fine = services.store(cfg(f"tracking.uri={uri}"))
    assert "http://me:***@127.0.0.1:9 does not answer" in said
    assert "secret" not in said
    assert not fine


def test_a_data_folder_must_be_one(cfg, tmp_path):
    assert services.data_folder(None)[1:] == (
        f"not set (AELAB_DATA_DIR): only the cache, {tmp_path / 'cache'}, is looked into",
        True,
    )
    assert services.data_folder(str(tmp_path))[2]
    _, said, fine = services.data_folder(str(tmp_path / "nowhere"))
    assert "BROKEN: no such folder" in said
    assert not fine


FILES = {
    "fashion_mnist": [
        *("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/train-labels-idx1-ubyte"),
        *("fashion-mnist/t10k-images-idx3-ubyte.gz", "fashion-mnist/t10k-labels-idx1-ubyte.gz"),
    ],
    "cifar10": ["cifar10/cifar-10-binary.tar.gz"],
    "ml_100k": [f"ml-100k/{name}" for name in ("u.item", "u.user", "u1.base", "u1.test")],
    "ml_1m": ["ml-1m/ml-1m.zip"],
    "ml_25m": ["ml-25m/movies.csv", "ml-25m/ratings.csv"],
    "nsl_kdd": ["nsl-kdd/KDDTrain+_20Percent.txt", "nsl-kdd/KDDTest+.txt"],
    "creditcard": ["creditcard/creditcard.csv.gz"],
    "arrhythmia": ["arrhythmia/arrhythmia.data"],
    "unsw_nb15": ["unsw-nb15/UNSW_NB15_training-set.csv", "unsw-nb15/UNSW_NB15_testing-set.csv"],
    "shakespeare": ["text/tinyshakespeare.txt"],
}


def test_every_data_set_that_is_looked_for_is_listed():
    needed = [
        name
        for name, file in compose.choices("dataset", [compose.CONF]).items()
        if "data_dir: ${data_dir}" in file.read_text()
    ]
    assert sorted(FILES) == needed


@pytest.mark.parametrize("name", FILES)
def test_a_data_set_is_found_by_its_files_alone(cfg, tmp_path, name):
    own = cfg(f"data_dir={tmp_path / 'data'}")
    files = [tmp_path / "data" / file for file in FILES[name]]
    said = services.whereabouts(name, own)
    assert said.startswith(("not here; downloaded from ", "not here; put "))
    assert said.startswith("not here; put ") == (name in ("arrhythmia", "unsw_nb15"))
    files[0].parent.mkdir(parents=True)
    for number, file in enumerate(files):
        if number:
            assert services.whereabouts(name, own).startswith(f"not whole: {file.parent} lacks ")
        file.write_bytes(b"")  # what is in it shows when it is read
    assert services.whereabouts(name, own) == f"here, in {files[0].parent}"


def test_what_needs_no_file_or_a_path_says_so(cfg):
    assert services.whereabouts("digits", cfg()) == "always there: needs no file"
    assert services.whereabouts("csv", cfg()) == "yours, by dataset=csv path=..."


def test_data_sets_of_others_are_neither_imported_nor_the_end(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_text("_target_: no_such_package.data.load\n")
    (folder / "torn.yaml").write_text("_target_: [\n")
    assert services.whereabouts("theirs", cfg()) == "of no_such_package.data.load, which is not imported here"
    assert services.whereabouts("torn", cfg()).startswith("BROKEN: its YAML: ")


def test_mirrors_have_one_name():
    for file in (compose.CONF / "dataset").glob("*.yaml"):
        node = OmegaConf.load(file)
        assert "mirror" not in node
        assert "mirror" not in (node.get("dataset") or {})


def test_the_command_fits_a_terminal(tmp_path):
    told = commands.done("doctor", cwd=tmp_path, COLUMNS="80").stdout
    lines = told.splitlines()
    assert max(map(len, lines)) <= 80
    names = [text.split()[0] for text in lines if not text.startswith("    ")]
    assert [n for n in names if n in ("python", "device", "precision", "store", "data_dir")] == [
        *("python", "device", "precision", "store", "data_dir")
    ]
    assert {"fashion_mnist", "digits", "csv"} <= set(names)
    assert not (tmp_path / "outputs").exists()
    lost = commands.run("doctor", cwd=tmp_path, AELAB_DATA_DIR=str(tmp_path / "nowhere"))
    assert (lost.returncode, lost.stderr) == (1, "")
    assert commands.run("doctor", "fit.epoch=1", cwd=tmp_path).returncode == 2
