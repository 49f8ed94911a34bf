"""Anomaly detection: nothing is fitted on what it must not see, by the pieces and by the real command."""

import contextlib
import functools
import json
import re
import time

import commands
import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from contract import listed, node
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from aelab import archive, backend, compose, corruptions, past, stored
from aelab.call import build
from aelab.config import AelabError, DataError
from aelab.data.load import load
from aelab.fit import fit
from aelab.run import optimizer, run
from aelab.tasks.anomaly import Anomaly

METRICS = ("roc_auc", "pr_auc", "recall_at", "precision_at")
AT_THRESHOLD = ("f1", "precision", "recall", "f1_optimistic", "threshold", "positive_rate")
FAST = ("fit.epochs=2", "task.resamples=20")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """Downloads go to an empty cache, and nothing leaves the machine by way of a proxy."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


def config(*overrides):
    with compose.session():
        return compose.compose(["task=anomaly", *overrides], [compose.CONF])


def some_rows(n, strange, seed=0) -> pd.DataFrame:
    """Two numbers that go together in normal rows, one that is sometimes missing, and a text; no row twice."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) < strange).astype(int)
    size = rng.gamma(2, 50, n)
    return pd.DataFrame(
        {
            "size": size.round(4),
            "weight": (size * (0.5 + label) + rng.normal(0, 4, n)).round(4),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 90, n)),
            "kind": rng.choice(["card", "cash", "wire"], n),
            "label": label,
        }
    )


# ---- no leak


class Log:
    """A tracker that takes no notice."""

    def epochs(self, rows):
        pass


def fitted(folder, *overrides) -> dict[str, str]:
    """A hash of each thing that a run fits, to the last bit."""
    cfg = config(*overrides)
    backend.prepare(cfg.seed, cfg.fit)
    raw, _ = load(cfg.dataset, None)
    task = build(cfg.task)
    data = task.prepare(raw, cfg)
    model = build(cfg.model, data.shape)
    history = fit(
        model, task, data, corruptions.chain(cfg.corruption), cfg, functools.partial(optimizer, cfg), Log(), folder
    )
    learnt = joblib.hash(
        model.get_weights() if isinstance(model, keras.Model) else model
    )  # now: trees count their uses
    task.fit_scores(model, data, cfg)
    return {
        "columns": joblib.hash(raw.columns),
        "preparation": joblib.hash(task.preparation),
        "features": joblib.hash(data.train.x),
        "model": learnt,
        "history": joblib.hash(history.drop(columns="time/epoch_s", errors="ignore").to_numpy()),
        "scores": joblib.hash(task.scores),
        "centre": joblib.hash(task.centre),
        "threshold": joblib.hash(task.threshold),
    }


SMALL = ("model.hidden=[8]", "model.bottleneck=2", "fit.epochs=3", "fit.batch_size=32")
PIPELINES = {
    "dense_ae": (*SMALL, "preparation=quantile", "score=mahalanobis", "threshold=best_f1"),
    "vae": (*SMALL, "preparation=standard", "score=elbo", "threshold=quantile"),
    "pca": ("model.bottleneck=2", "preparation=robust", "score=scaled", "threshold=false_positive_rate"),
    "gaussian_fit": ("preparation=minmax",),
    "isolation_forest": ("model.trees=20",),
    "knn": (),
    "lof": (),
    "ocsvm": (),
}


def changed(frame, rows):
    """The same rows with other values: a category that nobody knows, extremes, and nothing at all."""
    frame = frame.copy()
    frame.loc[rows, "kind"] = "coin"
    frame.loc[rows, "size"] = -frame.loc[rows, "size"] * 1000
    frame.loc[rows, "age"] = np.where(frame.loc[rows, "age"].isna(), 1e9, np.nan)
    return frame


@pytest.mark.parametrize("model", listed("model", "table"))
def test_nothing_is_fitted_on_test_rows_or_anomalies(model, tmp_path):
    files = f"path={tmp_path / 'rows.csv'}", f"dataset.test_path={tmp_path / 'held.csv'}"
    fit_again = functools.partial(
        fitted, tmp_path, "dataset=csv", *files, "label=label", "positive=1", f"model={model}", *PIPELINES[model]
    )
    rows, held = some_rows(240, 40), some_rows(100, 30, seed=1)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    held.to_csv(tmp_path / "held.csv", index=False)
    before = fit_again()

    other = changed(held, held.index % 3 > 0).iloc[10:]
    other.assign(label=1 - other["label"]).to_csv(tmp_path / "held.csv", index=False)
    assert fit_again() == before  # to the threshold: other test rows, other labels of theirs

    changed(rows, rows["label"] == 1).to_csv(tmp_path / "rows.csv", index=False)
    after = fit_again()
    assert {name for name in before if after[name] != before[name]} <= {"threshold"}  # made of all validation rows

    changed(rows, rows.index % 2 == 0).to_csv(tmp_path / "rows.csv", index=False)
    after = fit_again()
    learnt = {"columns", "preparation", "features", "model", "centre"}
    assert all(after[name] != before[name] for name in learnt)  # normal rows do count: the hashes see it


@pytest.mark.parametrize("model", listed("model", "table"))
def test_every_model_is_fitted_as_the_task_is_set(model, tmp_path):
    words = (f"model={model}", *(w for w in SMALL if w.startswith("fit.")))
    assert len(fitted(tmp_path, "dataset=breast_cancer", *words)) == 8


def test_nothing_is_fitted_on_the_test_rows_of_the_same_file(tmp_path):
    rows = some_rows(300, 60)
    words = ("dataset=csv", f"path={tmp_path / 'rows.csv'}", "label=label", "positive=1", *SMALL)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    before = fitted(tmp_path, *words)
    held = load(config(*words).dataset, None)[0].test
    where = rows["size"].isin(held.x[:, 0])
    assert where.sum() == len(held) == 60
    changed(rows, where).to_csv(tmp_path / "rows.csv", index=False)
    assert fitted(tmp_path, *words) == before


def test_a_stored_run_never_reads_codes_by_other_categories(tmp_path):
    """Another seed may draw training rows without a rare value: the codes of the others would move."""
    rows = some_rows(200, 40)
    rows.loc[rows.index[rows["label"] == 0][:1], "kind"] = "aaa"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    words = ("dataset=csv", f"path={tmp_path / 'rows.csv'}", "label=label", "positive=1", "preparation=standard")
    cfg = config(*words)
    found = [load({**cfg.dataset, "seed": seed}, None)[0] for seed in range(30)]
    known = ["aaa" in data.columns.categories["kind"] for data in found]
    one, two = known.index(True), known.index(False)
    task = Anomaly(resamples=0, confidence=0.95, strangest=1)
    expected = task.prepare(found[one], cfg).test.x
    got = expected
    with contextlib.suppress(AelabError):  # to refuse is as good
        got = task.prepare(found[two], cfg).test.x
    np.testing.assert_array_equal(got, expected)  # the test rows are the same


# ---- a run by the real command


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """(working folder, result) of one run."""
    words = ("task=anomaly", "dataset=breast_cancer", "fit.epochs=3", "task.resamples=50")
    return commands.shared(tmp_path_factory, "anomaly", *words)


@pytest.fixture(scope="module")
def folder(command):
    """The run folder."""
    return commands.folder_of(command[1])


@pytest.fixture(scope="module")
def figures(folder):
    """metrics.json without the times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {k: v for k, v in metrics.items() if not k.startswith("time/")}


@pytest.fixture(scope="module")
def rescored(folder):
    """part -> (which rows are anomalies, scores), by the stored model and preparation and nothing else of ours."""
    data, _ = load(past.config(folder, [], []).dataset, None)
    kept = archive.read(folder / "detector.skops")
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    found = {}
    for part in ("validation", "test"):
        split = getattr(data, part)
        x = kept["preparation"](split.x)
        found[part] = split.y > 0, kept["scores"][0](x, model.predict(x, verbose=0))
    return found


def test_run_folder_holds_every_file(folder, command):
    names = {p.name for p in folder.iterdir()}
    expected = {"config.yaml", "overrides.yaml", "metrics.json", "history.csv", "run.log", "report.html"}
    expected |= {"model.keras", "detector.skops", "curves.png", "curves_roc_pr.png", "scores.png"}
    assert expected | {"error_by_column.png"} <= names
    assert "Traceback" not in (folder / "run.log").read_text()
    assert command[1].stderr == ""
    assert "anomalies: 0.00% of train" in command[1].stdout
    report = (folder / "report.html").read_text()
    for text in ("strangest rows of the test", "roc_auc", "threshold", "because"):
        assert text in report
    assert re.search(r"(mean|worst) \w+ = [\d.]+ \(\d+%\)", report)


def test_metrics_have_the_names_that_scripts_rely_on(figures):
    names = {f"test/{m}{end}" for m in METRICS for end in ("", "_low", "_high")} | {f"test/{m}" for m in AT_THRESHOLD}
    assert set(figures) == names | {f"val/{m}" for m in METRICS}
    assert all(isinstance(v, float) and np.isfinite(v) for v in figures.values())
    for name in METRICS:
        assert figures[f"test/{name}_low"] <= figures[f"test/{name}_high"]
    for name in ("roc_auc", "pr_auc"):
        assert figures[f"test/{name}_low"] < figures[f"test/{name}"] < figures[f"test/{name}_high"]


def test_metrics_are_scikit_learns_of_the_scores(figures, rescored):
    strange, scores = rescored["test"]
    flags = scores >= figures["test/threshold"]
    precision, recall, _ = precision_recall_curve(strange, scores)
    expected = {
        "roc_auc": roc_auc_score(strange, scores),
        "pr_auc": average_precision_score(strange, scores),
        "f1": f1_score(strange, flags),
        "precision": precision_score(strange, flags),
        "recall": recall_score(strange, flags),
        "positive_rate": strange.mean(),
        "f1_optimistic": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
        "precision_at": strange[np.argsort(-scores)[: node("metric", "precision_at")["k"]]].mean(),
    }
    for name, value in expected.items():
        assert figures[f"test/{name}"] == pytest.approx(value, abs=1e-6), name


def test_the_threshold_makes_the_best_f1_on_validation(figures, rescored):
    strange, scores = rescored["validation"]
    precision, recall, _ = precision_recall_curve(strange, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_score(strange, scores >= figures["test/threshold"] - 1e-6) == pytest.approx(best)


@pytest.fixture(scope="module")
def new_rows(command):
    """A file in the working folder of the run: the rows of its test, whose label column is not there."""
    frame = load_breast_cancer(as_frame=True).data
    data, _ = load(past.config(commands.folder_of(command[1]), [], []).dataset, None)
    at = {row.tobytes(): i for i, row in enumerate(frame.to_numpy())}
    rows = frame.iloc[[at[row.tobytes()] for row in data.test.x]]
    rows.to_csv(command[0] / "new.csv", index=False)
    bad = rows.astype(object).reset_index(drop=True)
    bad.loc[120, "mean area"] = "large"
    bad.to_csv(command[0] / "bad.csv", index=False)
    return rows.reset_index(drop=True)


@pytest.fixture(scope="module")
def afterwards(command, folder, new_rows):
    """What is done with the run, by the real command."""
    words = {
        "evaluate": ("evaluate", f"run={folder}"),
        "score": ("score", f"run={folder}", "input=new.csv", "output=scored.csv", "rows=50"),
        "bad cell": ("score", f"run={folder}", "input=bad.csv", "output=bad-scored.csv", "rows=50"),
    }
    return commands.together({n: functools.partial(commands.run, *w, cwd=command[0]) for n, w in words.items()})


def test_evaluate_gives_the_same_metrics(afterwards, folder, figures):
    result = afterwards["evaluate"]
    assert (result.returncode, result.stderr) == (0, "")
    (file,) = (folder / "evaluations").iterdir()
    again = json.loads(file.read_text())
    assert again.pop("overrides") == []
    assert again == pytest.approx(figures, abs=1e-6)


def test_scores_of_a_file_are_those_of_the_test(afterwards, command, figures, rescored, new_rows):
    result = afterwards["score"]
    assert (result.returncode, result.stderr) == (0, "")
    scored = pd.read_csv(command[0] / "scored.csv")
    assert list(scored.columns) == [*new_rows.columns, "score", "flag", "because"]
    np.testing.assert_allclose(scored["score"], rescored["test"][1], rtol=1e-5)
    np.testing.assert_array_equal(scored["flag"], rescored["test"][1] >= figures["test/threshold"])
    pd.testing.assert_frame_equal(scored[new_rows.columns], new_rows)
    assert f"171 rows scored, {scored['flag'].sum()} flagged; written to scored.csv" in result.stdout


def test_a_bad_cell_in_what_is_scored_is_one_line(afterwards, command):
    said = commands.complaint(afterwards["bad cell"])
    assert "bad.csv: column mean area: expected finite numbers, got 'large' in line 122;" in said
    assert "repair=missing" in said
    assert afterwards["bad cell"].returncode == 1
    assert not list(command[0].glob("bad-scored*"))


# ---- other models, in this process


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function that makes a run and gives (its folder, its metrics)."""
    home = tmp_path_factory.mktemp("runs")

    def make(name, *words):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            target = home / "outputs" / "runs" / name
            cfg = config(*FAST, *words)
            return target, run(compose.Job(list(words), cfg, target, compose.signature(cfg)), time.time())

    return make


MODELS = {
    "lof": ("model=lof",),
    "ensemble": ("model.members=3", "model.hidden=[8]", "score=scaled"),
    "vae": ("model=vae", "loss=[mse]", "score=elbo", "model.hidden=[8]"),
    "contaminated": ("model=pca", "score=mse", "dataset.contamination=0.1", "threshold=quantile"),
    "noisy": ("model.hidden=[8]", "corruption=[swap]"),
}


@pytest.fixture(scope="module")
def made(runs):
    """name -> (folder, metrics) of a run of each of MODELS."""
    return {name: runs(name, "dataset=breast_cancer", *words) for name, words in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_run_of_another_model(name, made):
    target, metrics = made[name]
    assert {"report.html", "metrics.json", "detector.skops"} <= {p.name for p in target.iterdir()}
    assert (target / "model.keras").exists() == (name not in ("lof", "contaminated"))
    assert 0.7 < metrics["test/roc_auc"] <= 1
    assert json.loads((target / "metrics.json").read_text()) == metrics


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_run_of_another_model_gives_the_same(name, made):
    target, metrics = made[name]
    stored.evaluate_run(target, past.config(target, [], []), [], None)
    (file,) = (target / "evaluations").iterdir()
    again = {k: v for k, v in json.loads(file.read_text()).items() if k != "overrides"}
    assert again == pytest.approx({k: v for k, v in metrics.items() if not k.startswith("time/")}, abs=1e-5)


def test_an_ensemble_scores_the_mean_of_its_members(made):
    target, _ = made["ensemble"]
    cfg = past.config(target, [], [])
    task = build(cfg.task)
    task.recall(target)
    x = task.preparation(load(cfg.dataset, None)[0].test.x)
    outputs = keras.saving.load_model(target / "model.keras", compile=False).predict(x, verbose=0)
    assert len(outputs) == len(task.scores) == 3
    each = [score(x, output) for score, output in zip(task.scores, outputs, strict=True)]
    assert not np.allclose(each[0], each[1])
    model = stored.model_of(cfg, target, None)
    np.testing.assert_allclose(task.score(model, x), np.mean(each, axis=0), rtol=1e-5)
    task.scores = task.scores[:2]  # a detector of another run
    with pytest.raises(AelabError, match="has 3 members, its detector was fitted on 2: they are of two runs; copy"):
        task.score(model, x)


def test_training_rows_of_a_contaminated_run(made):
    assert "contamination: 0.1" in (made["contaminated"][0] / "config.yaml").read_text()
    data, _ = load(past.config(made["contaminated"][0], [], []).dataset, None)
    assert np.mean(data.train.y) == pytest.approx(0.1, abs=0.005)


def test_a_score_that_the_model_has_nothing_for(runs):
    with pytest.raises(AelabError, match=r"score=elbo: model=pca gives no 'mean'"):
        runs("no-elbo", "dataset=breast_cancer", "model=pca", "score=elbo")


# ---- the user's own file: train, test again, score


@pytest.fixture(scope="module")
def mine(tmp_path_factory, runs):
    """(folder of files, run folder) of a run on a file of the user's, in which rows are coloured by kind."""
    home = tmp_path_factory.mktemp("mine")
    some_rows(240, 60).to_csv(home / "rows.csv", index=False)
    words = (
        "dataset=csv",
        f"path={home / 'rows.csv'}",
        "label=label",
        "positive=1",
        "model=pca",
        "model.bottleneck=2",
        "score=mse",
    )
    return home, runs("mine", *words)[0]


def scores(mine, source, rows=50_000, repair=None, name="scored.csv"):
    """The rows of a file with their scores."""
    home, target = mine
    stored.score(target, past.config(target, [], []), home / source, home / name, rows, repair)
    assert not list(home.glob("*.part"))
    return pd.read_csv(home / name)


@pytest.fixture(scope="module")
def fresh(mine):
    """Rows that the run has not seen, in the file new.csv."""
    frame = some_rows(90, 30, seed=3)
    frame.loc[4, "kind"] = "coin"
    frame.to_csv(mine[0] / "new.csv", index=False)
    return frame


def test_a_run_on_a_file_of_ones_own_is_tested_again(mine):
    _, target = mine
    stored.evaluate_run(target, past.config(target, [], []), [], None)
    (file,) = (target / "evaluations").iterdir()
    again, first = json.loads(file.read_text()), json.loads((target / "metrics.json").read_text())
    assert again["test/roc_auc"] == pytest.approx(first["test/roc_auc"], abs=1e-6)


def test_scores_find_the_anomalies_and_say_why(mine, fresh, capsys):
    scored = scores(mine, "new.csv")
    pd.testing.assert_frame_equal(scored[fresh.columns], fresh)
    assert roc_auc_score(fresh["label"], scored["score"]) > 0.8
    assert 0 < scored["flag"].sum() < 90
    assert scored.loc[scored["flag"], "score"].min() >= scored.loc[~scored["flag"], "score"].max()
    assert scored.loc[4, "because"].count("kind = other") == 1
    assert all(text.count("%)") == 3 for text in scored["because"])
    assert "column kind: 1 values not seen in training" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("rows", [1, 7, 90])
def test_the_size_of_the_parts_does_not_matter(rows, mine, fresh):
    whole, parts = scores(mine, "new.csv"), scores(mine, "new.csv", rows)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-6)


def test_parquet_gzip_and_no_label_score_the_same(mine, fresh):
    home, _ = mine
    whole = scores(mine, "new.csv")
    fresh.to_parquet(home / "new.parquet")
    fresh.to_csv(home / "new.csv.gz", index=False)
    fresh[["kind", "age", "weight", "size"]].assign(id="x1").to_csv(home / "bare.csv", index=False)
    for source in ("new.parquet", "new.csv.gz", "bare.csv"):
        scored = scores(mine, source, 40)
        pd.testing.assert_frame_equal(scored[["score", "flag", "because"]], whole[["score", "flag", "because"]])
    assert list(scored.columns) == ["kind", "age", "weight", "size", "id", "score", "flag", "because"]


def test_what_was_scored_can_be_scored_again(mine, fresh):
    whole = scores(mine, "new.csv", name="once.csv")
    pd.testing.assert_frame_equal(scores(mine, "once.csv", name="twice.csv"), whole)


@pytest.mark.parametrize("rows", [10, 1000])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_bad_cell_leaves_no_half_written_output(rows, kind, mine, fresh):
    home, _ = mine
    bad = fresh.copy()
    bad.loc[54, "weight"] = np.inf
    bad.to_parquet(home / "bad.parquet") if kind == "parquet" else bad.to_csv(home / "bad.csv", index=False)
    with pytest.raises(DataError) as error:
        scores(mine, f"bad.{kind}", rows, name="bad-scored.csv")
    assert f"bad.{kind}: column weight: expected finite numbers, got inf in " in str(error.value)
    assert f" {56 if kind == 'csv' else 55};" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(home.glob("bad-scored*"))


@pytest.mark.parametrize("rows", [1, 1000])
def test_bad_cells_that_are_repaired(rows, mine, fresh, capsys):
    home, _ = mine
    whole = scores(mine, "new.csv")
    bad = fresh.astype({"weight": object})
    bad.loc[[0, 33], "weight"] = "heavy"
    bad.to_csv(home / "mended.csv", index=False)
    left = scores(mine, "mended.csv", rows, "drop")
    kept = whole.drop([0, 33]).reset_index(drop=True)
    np.testing.assert_allclose(left["score"], kept["score"], rtol=1e-6)
    np.testing.assert_array_equal(left["size"], kept["size"])
    filled = scores(mine, "mended.csv", rows, "missing")
    assert len(filled) == 90
    assert list(filled.loc[[0, 33], "weight"]) == ["heavy", "heavy"]
    others = whole.index.difference([0, 33])
    np.testing.assert_allclose(filled.loc[others, "score"], whole.loc[others, "score"], rtol=1e-6)
    assert "column weight: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", "size,age,kind\n1,2,card\n", "expected a column 'weight', got size, age, kind"),
        ("bare.csv", "size,weight,age,kind\n", "got a header alone"),
        ("empty.csv", "", "got an empty file"),
        ("other.csv", "size;weight;age;kind\n1;2;3;card\n", "try dataset.delimiter=';'"),
    ],
)
def test_files_that_cannot_be_scored(name, content, said, mine):
    (mine[0] / name).write_text(content)
    with pytest.raises(DataError) as error:
        scores(mine, name, name="no.csv")
    assert f"{mine[0] / name}: " in str(error.value)
    assert said in str(error.value)
    assert not list(mine[0].glob("no.csv*"))


# ---- the real thing


@pytest.mark.data
@pytest.mark.parametrize("name", ["creditcard", "nsl_kdd", "arrhythmia"])
def test_a_run_on_real_data(name, runs, real_data):
    model = {"creditcard": "dense_ae", "nsl_kdd": "dense_ae", "arrhythmia": "isolation_forest"}[name]
    words = (f"dataset={name}", "debug=fast", f"model={model}", f"data_dir={real_data}", "dataset.fallback=null")
    target, metrics = runs(name, *words)
    assert 0.5 < metrics["test/roc_auc"] <= 1
    assert all(np.isfinite(value) for value in metrics.values())
    report = (target / "report.html").read_text()
    assert ("by family" in report) == (name == "nsl_kdd")
