"""Language models by the real commands: train, test again, write on; what a run leaves, and what cannot be done."""

import json
import math
import shutil

import commands
import numpy as np
import pytest
from contract import component
from omegaconf import OmegaConf

from aelab import compose
from aelab.inference import weights
from aelab.inference.lstm import LanguageModel, softmax
from aelab.inference.tokens import UNKNOWN, pieces
from aelab.streams import MASKED, windows

QUICK = ("task=language", "dataset=python_reference", "debug=fast", "tracking.log_model=false")
CHARS = (*QUICK, "model.hidden=8")
WORDS = (*QUICK, "model=gates", "model.hidden=8", "dataset.unit=word", "dataset.vocabulary=200")
BASELINES = ("uniform", "unigram", "kneser_ney", "gru")
SWEEP = ("-m", *QUICK, "dataset.limit=3000", "fit.epochs=1", f"model={','.join(BASELINES)}")
HEAVY = ("tensorflow", "keras", "mlflow", "sklearn", "scipy", "pandas", "matplotlib")
LIGHT = (
    "import atexit, sys\n"
    f"atexit.register(lambda: print('HEAVY', *sorted(sys.modules.keys() & {set(HEAVY)})))\n"
    "from aelab.cli import main\nmain()"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def results(home):
    """name -> result of the training commands."""
    words = {"char": CHARS, "word": WORDS, "sweep": SWEEP}
    return commands.together({name: lambda w=w: commands.done(*w, cwd=home) for name, w in words.items()})


@pytest.fixture(scope="module")
def runs(results, home):
    """name -> run folder."""
    jobs = sorted(home.glob("outputs/sweeps/*/*/[0-3]-*"))
    found = {name: commands.folder_of(results[name]) for name in ("char", "word")}
    return found | dict(zip(BASELINES, jobs, strict=True))


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def data_of(folder):
    """The text as a run read it."""
    knobs = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml").dataset)
    return component("dataset", "python_reference", **{k: v for k, v in knobs.items() if k != "_target_"})()


# ---- what a run leaves


@pytest.mark.parametrize("name", ["char", "word"])
def test_a_run_leaves_weights_figures_and_a_report(name, runs, results):
    assert results[name].stderr == ""
    names = {p.name for p in runs[name].iterdir()}
    assert {"weights.npz", "model.keras", "memory.png", "kinds.png", "calibration.png", "curves.png"} <= names
    report = (runs[name] / "report.html").read_text()
    for title in ("test tokens by kind", "what comes next", "texts that it writes"):
        assert title in report
    found, vocabulary = weights.read(runs[name] / "weights.npz")
    assert tuple(vocabulary) == data_of(runs[name]).label_names
    assert LanguageModel(*found).v == len(vocabulary)


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_no_lstm_leaves_no_weights_file(name, runs):
    names = {p.name for p in runs[name].iterdir()}
    assert "weights.npz" not in names
    assert ("model.keras" in names, "model.skops" in names) == (name == "gru", name != "gru")


@pytest.mark.parametrize("name", ["char", "word", *BASELINES])
def test_perplexity_and_bits_are_the_nll_in_other_units(name, runs):
    metrics, data = metrics_of(runs[name]), data_of(runs[name])
    for short, split in (("val", data.validation), ("test", data.test)):
        nll = metrics[f"{short}/nll"]
        assert metrics[f"{short}/perplexity"] == pytest.approx(math.exp(nll), rel=1e-5)
        size = split.y.sum() / len(split)  # characters of a token, with the spaces before it
        assert size == 1 if name != "word" else size > 2
        assert metrics[f"{short}/bits_per_character"] == pytest.approx(nll / size / math.log(2), rel=1e-5)
        assert 0 <= metrics[f"{short}/accuracy"] <= metrics[f"{short}/top_k_accuracy"] <= 1


@pytest.mark.parametrize("name", ["char", "word"])
def test_the_stored_weights_give_the_test_metrics_in_numpy(name, runs):
    data, metrics = data_of(runs[name]), metrics_of(runs[name])
    cfg = OmegaConf.load(runs[name] / "config.yaml").task
    model = LanguageModel(*weights.read(runs[name] / "weights.npz")[0])
    whole = np.concatenate([data.train.x, data.validation.x, data.test.x])
    losses, right = [], []
    for inputs, targets in windows(whole, len(whole) - len(data.test), cfg.context, cfg.scored):
        logits = model.run(inputs[:, None], model.start(1))[0][targets != MASKED, 0].astype(float)
        wanted = targets[targets != MASKED]
        losses += list(-np.log(softmax(logits)[np.arange(len(wanted)), wanted]))
        right += list(logits.argmax(axis=1) == wanted)
    assert len(losses) == len(data.test) == 512
    assert metrics["test/nll"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert metrics["test/accuracy"] == pytest.approx(np.mean(right))


def test_what_reads_more_of_the_past_expects_the_next_better(runs):
    uniform, unigram, kneser_ney = (metrics_of(runs[name]) for name in BASELINES[:3])
    for metric in ("val/nll", "test/nll", "test/bits_per_character", "test/perplexity"):
        assert kneser_ney[metric] < 0.9 * unigram[metric] < 0.8 * uniform[metric]
    assert uniform["test/perplexity"] == pytest.approx(len(data_of(runs["uniform"]).label_names), rel=1e-5)


@pytest.fixture(scope="module")
def again(runs, home):
    """name -> result of testing a run again."""
    names = ("char", "kneser_ney")
    return commands.together({n: lambda n=n: commands.run("evaluate", f"run={runs[n]}", cwd=home) for n in names})


@pytest.mark.parametrize("name", ["char", "kneser_ney"])
def test_evaluate_gives_the_same_metrics(name, again, runs):
    assert (again[name].returncode, again[name].stderr) == (0, "")
    (file,) = (runs[name] / "evaluations").iterdir()
    found = json.loads(file.read_text())
    assert found.pop("overrides") == []
    first = metrics_of(runs[name])
    assert found == pytest.approx({k: v for k, v in first.items() if not k.startswith("time/")}, abs=1e-6)


# ---- writing


def copied(runs, name, folder):
    """What `aelab generate` needs of a run: two files."""
    folder.mkdir(parents=True)
    for file in ("config.yaml", "weights.npz"):
        shutil.copy(runs[name] / file, folder)
    return folder


ASKED = {
    "one": ("char", "prompt=The for", "tokens=20", "seed=1"),
    "same": ("char", "prompt=The for", "tokens=20", "seed=1"),
    "other": ("char", "prompt=The for", "tokens=20", "seed=2"),
    "none": ("char", "prompt=The for", "tokens=0"),
    "bare": ("char", "tokens=20"),
    "surest": ("char", "prompt=The for", "tokens=20", "temperature=0", "seed=1"),
    "first": ("char", "prompt=The for", "tokens=20", "top_k=1", "seed=2"),
    "words": ("word", "prompt=the statement, a value", "tokens=20", "seed=1"),
    "copy": ("copy", "prompt=The for", "tokens=20", "seed=1"),
}


@pytest.fixture(scope="module")
def texts(runs, home):
    """name -> (what was written, the packages that were imported for it)."""
    folders = runs | {"copy": copied(runs, "char", home / "copy")}
    program = (str(commands.BIN / "python"), "-c", LIGHT)

    def ask(name, *words):
        return commands.end(commands.start("generate", f"run={folders[name]}", *words, cwd=home, program=program))

    found = {}
    for name, result in commands.together({n: lambda w=w: ask(*w) for n, w in ASKED.items()}).items():
        assert (result.returncode, result.stderr) == (0, ""), name
        text, _, heavy = result.stdout.rpartition("HEAVY")
        found[name] = text, heavy.split()
    return found


def test_the_prompt_is_written_and_gone_on_with(texts):
    text = texts["one"][0]
    assert text.startswith("The for")
    assert len(text) == len("The for") + 20 + 1
    assert text.endswith("\n")
    assert "\ufffd" not in text
    assert texts["none"][0] == "The for\n"


def test_without_a_prompt_it_begins_a_line(texts):
    assert len(texts["bare"][0]) == 20 + 1


def test_the_seed_decides_the_text(texts):
    assert texts["one"][0] == texts["same"][0]
    assert texts["one"][0] != texts["other"][0]


def test_the_likeliest_text_needs_no_seed(texts):
    assert texts["surest"][0] == texts["first"][0]


def test_words_are_written_with_their_spaces(texts, runs):
    text = texts["words"][0]
    assert text.startswith("the statement, a value")
    found, vocabulary = pieces(text[:-1], "word")[0], weights.read(runs["word"] / "weights.npz")[1]
    assert len(found) == 5 + 20
    assert set(found) <= set(vocabulary[UNKNOWN + 1 :])


def test_the_two_files_are_enough(texts):
    assert texts["copy"][0] == texts["one"][0]


@pytest.mark.parametrize("name", ASKED)
def test_nothing_heavy_is_imported(name, texts):
    assert texts[name][1] == []


# ---- what cannot be written


@pytest.fixture(scope="module")
def broken(runs, home):
    """name -> result of a command that cannot be done."""
    cut, nan = (copied(runs, "char", home / name) for name in ("cut", "nan"))
    whole = (cut / "weights.npz").read_bytes()
    (cut / "weights.npz").write_bytes(whole[: len(whole) // 2])
    with np.load(nan / "weights.npz") as stored:
        arrays = dict(stored)
    arrays["dense.kernel"][3, 4] = np.nan
    np.savez(nan / "weights.npz", **arrays)
    with compose.session():
        (home / "denoise").mkdir()
        OmegaConf.save(compose.compose(["task=denoise"], [compose.CONF]), home / "denoise" / "config.yaml")
    char, word = f"run={runs['char']}", f"run={runs['word']}"
    words = {
        "no such word": (word, "prompt=the xyzzyq of a"),
        "nearly a word": (word, "prompt=the statment"),
        "no such character": (char, "prompt=The ☃"),
        "nothing to read": (word, "prompt= "),
        "truncated": (f"run={cut}",),
        "nan": (f"run={nan}",),
        "another task": (f"run={home / 'denoise'}",),
        "gru": (f"run={runs['gru']}",),
        "kneser_ney": (f"run={runs['kneser_ney']}",),
        "tokens": (char, "tokens=-1"),
        "half a token": (char, "tokens=1.5"),
        "temperature": (char, "temperature=nan"),
        "hot": (char, "temperature=inf"),
        "seed": (char, "seed=x"),
        "no such word of the command": (char, "length=9"),
    }
    return commands.together({n: lambda w=w: commands.run("generate", *w, cwd=home) for n, w in words.items()})


@pytest.mark.parametrize(
    ("case", "code", "texts"),
    [
        ("no such word", 1, ["prompt: the model's vocabulary of 200 lacks 'xyzzyq'"]),
        ("nearly a word", 1, ["lacks 'statment'; instead of 'statment', did you mean ", "statement"]),
        ("no such character", 1, ["prompt: the model's vocabulary of ", " lacks '☃'"]),
        ("nothing to read", 1, ["prompt=' ': has no word; give some text"]),
        ("truncated", 1, ["cut/weights.npz: expected an .npz of aelab.lstm: its end is missing"]),
        ("nan", 1, ["nan/weights.npz: dense.kernel (8, ", "): 1 values are NaN or infinite"]),
        (
            "another task",
            2,
            ["runs on texts and models that draw images, this one is of task=denoise"],
        ),
        ("gru", 1, ["weights.npz is not there", "finished LSTMs (model=lstm or gates), this run is of model=gru"]),
        ("kneser_ney", 1, ["weights.npz is not there", "this run is of model=kneser_ney"]),
        ("tokens", 2, ["tokens=-1: expected a whole number, at least 0"]),
        ("half a token", 2, ["tokens=1.5: expected a whole number, at least 0"]),
        ("temperature", 2, ["temperature=nan: expected a number, at least 0"]),
        ("hot", 2, ["temperature=inf: expected a number, at least 0"]),
        ("seed", 2, ["seed=x: expected a whole number, at least 0"]),
        ("no such word of the command", 2, ["length"]),
    ],
)
def test_what_cannot_be_written_is_one_line(case, code, texts, broken):
    said = commands.complaint(broken[case])
    assert all(text in said for text in texts)
    assert broken[case].returncode == code
    assert broken[case].stdout == ""
