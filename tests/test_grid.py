"""Which jobs a sweep has: products, pairs, tables, repeats, and choices of which some do not fit."""

import itertools

import commands
import pytest

from aelab import compose, grid
from aelab.config import ConfigError

WIDTHS, SEEDS = ("model.width=8", "model.width=16"), ("seed=7", "seed=8")
ADAMS, EPOCHS = ("optimizer=adam", "optimizer=adamw"), ("fit.epochs=3", "fit.epochs=4")
ROWS = ("seed=1 model.width=8", "seed=2 corruption=[masking,gaussian] model.width=16")
INTERVAL = "an interval is no list of values; add search=tpe, or give range(...) or a list"
TWICE = "sweep.seeds: the seed is swept already; leave one of them out"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with a table, and with an experiment that has a seed and says what it sweeps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text('\ufeffseed,corruption,model.width\n1,,8\n2,"[masking,gaussian]",16\n')
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: 7\nsweep:\n  over:\n    model.width: 8,16\n    optimizer: glob(adam*)\n"
    )


def every(*words):
    """The jobs of a sweep, and those refused."""
    with compose.session():
        return grid.every(list(words), compose.folders([]), True)


def line(*words):
    """What a sweep is refused with: one line, exit code 2."""
    with pytest.raises(ConfigError) as error:
        every(*words)
    assert (error.value.code, str(error.value).count("\n")) == (2, 0)
    return str(error.value)


def product(*axes):
    """Every combination, that of the last axis changes first."""
    return [" ".join(words) for words in itertools.product(*axes)]


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (
            "model.width=8,16 fit.epochs=3 seed=range(2)",
            product(WIDTHS, ["fit.epochs=3"], ["seed=0", "seed=1"]),
        ),
        (
            "model.width=8,16 seed=1,2 fit.epochs=3,4 sweep.zip=[model.width,seed]",
            product(EPOCHS, ["model.width=8 seed=1", "model.width=16 seed=2"]),
        ),
        ("seed=3 sweep.seeds=3", ["seed=3", "seed=4", "seed=5"]),
        ("model.width=8,16 sweep.seeds=2", product(WIDTHS, ["seed=0", "seed=1"])),
        ("sweep.table=table.csv fit.epochs=3,4", product(EPOCHS, ROWS)),
        ("experiment=mine", product(["experiment=mine"], WIDTHS, ADAMS)),
        ("experiment=mine optimizer=sgd sweep.seeds=2", product(["experiment=mine optimizer=sgd"], WIDTHS, SEEDS)),
        ("experiment=mine model.width=4", product(["experiment=mine model.width=4"], ADAMS)),
        ("model.width=8,16,8 corruption.level=1,1.0", product(WIDTHS, ["corruption.level=1"])),
    ],
    ids=["product", "zip", "seeds", "all seeds", "table", "over", "seeds of an experiment", "typed", "equal"],
)
def test_the_jobs_of_a_sweep(words, jobs):
    found, refused = every(*words.split())
    assert [grid.told(job.overrides) for job in found] == jobs
    assert refused == []
    assert len({job.folder.parent for job in found}) == 1
    assert [job.folder.name.partition("-")[0] for job in found] == [str(n) for n in range(len(jobs))]
    for job in found:  # what was typed is what is run
        for word in job.overrides:
            key, _, value = word.partition("=")
            if key in ("seed", "model.width", "fit.epochs"):
                assert str(compose.flat(job.cfg)[key]) == value


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "model.width=8,16 seed=1,2,3 sweep.zip=[model.width,seed]",
            "sweep.zip: expected as many values of each, got model.width 2, seed 3",
        ),
        (
            "model.width=8,16 seed=1 sweep.zip=[model.width,seed]",
            "sweep.zip: seed is not swept; give it several values, as seed=1,2",
        ),
        ("sweep.zip=[seed]", "sweep.zip: seed is not swept; give it several values, as seed=1,2"),
        ("seed=1,2 sweep.seeds=2", TWICE),
        ("sweep.table=table.csv sweep.seeds=2", TWICE),
        ("seed=x sweep.seeds=2", "seed: expected a whole number at least 0, got 'x'"),
        ("sweep.seeds=0", "sweep.seeds: expected a whole number at least 1 or null, got 0"),
        (
            "seed=1,2 sweep.table=table.csv",
            "sweep.table: seed is a column, and is swept beside it; leave one of them out",
        ),
        ("model.width=interval(8,16)", f"model.width=interval(8,16): {INTERVAL}"),
        ("sweep.over={model.width:'interval(8,16)'}", f"model.width=interval(8,16): {INTERVAL}"),
        (
            "sweep.over={model.width:'8,,16'}",
            "model.width=8,,16: not understood; write key=value, and quote what a shell would change",
        ),
        ("sweep.over={model.widht:'8,16'}", "model.widht: unknown; did you mean width?"),
    ],
)
def test_what_is_no_sweep_is_told_in_a_line(words, said):
    assert line(*words.split()) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read ([Errno 2] No such file or directory: 'some.csv')"),
        (b"\xff", "cannot be read ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        (b"", "is empty; expected a header with names of values"),
        (b"seed\n", "has a header, but no row"),
        (b"seed,model.width\n1,8\n2\n", "row 3 has 1 fields, the header 2"),
    ],
    ids=["missing", "no text", "empty", "no row", "ragged"],
)
def test_a_table_that_is_none_is_told_in_a_line(content, said, tmp_path):
    if content is not None:
        (tmp_path / "some.csv").write_bytes(content)
    assert line("sweep.table=some.csv") == f"sweep.table=some.csv: {said}"


def test_a_name_in_a_table_that_is_not_there_is_told_in_a_line(tmp_path):
    (tmp_path / "some.csv").write_text("model.widht\n8\n")
    assert line("sweep.table=some.csv") == "model.widht: unknown; did you mean width?"


def test_of_a_glob_what_does_not_fit_is_refused_by_name_and_the_rest_is_kept():
    found, refused = every("model=glob(*)", "task=anomaly", "seed=1,2")
    fit = compose.fitting("model", ("table",), compose.folders([]))
    known = [*compose.choices("model", compose.folders([]))]
    assert [job.cfg.choices.model for job in found] == [name for name in fit for _ in (1, 2)]
    assert 4 < len(fit) < len(known) - 4
    assert {one.overrides[0] for one in refused} == {f"model={name}" for name in known if name not in fit}
    (unet,) = (one for one in refused if one.overrides == ["model=unet_mini", "task=anomaly", "seed=1"])
    assert unet.why.startswith("model=unet_mini: is for image data, but task=anomaly takes table; models that fit:")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model=glob(k*)", "model=kneser_ney: is for text data, but task=denoise takes image; models that fit: "),
        ("model=glob(zz*)", "model=glob(zz*): matches no model; there are: als, "),
        ("model=unet_mini,vae", "model=vae: is for table data, but task=denoise takes image; models that fit: "),
    ],
)
def test_a_sweep_without_a_job_that_fits_is_an_error_and_so_is_a_misfit_that_was_named(words, said):
    assert line(*words.split()).startswith(said)


def test_misfits_are_told_by_their_reasons():
    _, refused = every("model=glob(*)", "task=anomaly", "seed=1,2")
    found = grid.misfits(refused)
    image = found["is for image data, but task=anomaly takes table"]
    assert image == [f"model={name}" for name in compose.fitting("model", ("image",), compose.folders([]))]
    assert found["model.run: missing; give it as model.run=... (a text)"] == [
        f"model=vectors task=anomaly seed={n}" for n in (1, 2)
    ]


def test_misfits_are_told_before_the_others_are_run(tmp_path):
    words = ("-m", "model=glob([med*,knn])", "dataset=digits", "debug=fast", "dataset.limit=40", "model.size=3")
    result = commands.done(*words, cwd=tmp_path)
    told = commands.complaint(result)
    assert told.startswith("not run: model=knn dataset=digits debug=fast dataset.limit=40 model.size=3: model.size: ")
    assert [run.info.status for run in commands.runs(commands.client(tmp_path))] == ["FINISHED"] * 2
