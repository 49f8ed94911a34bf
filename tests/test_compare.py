"""`aelab compare`: groups, filters and intervals against numbers worked out by hand and by SciPy, on a real store."""

import csv
import io
import json
import sys

import commands
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric, Param
from scipy import stats

from aelab import account, compare, paired, query, tracking
from aelab.config import AelabError, ConfigError

COMMON = {
    "task": "denoise",
    "dataset": "digits",
    "metric": "psnr+mse",
    "metric.psnr.goal": "max",
    "metric.mse.goal": "min",
    "fit.epochs": "3",
}
PSNR = {"16": (20, 21, 22), "32": (23, 25, 24.6), "median": (18, 18.5, 19.4)}
"""By kind of model, of seeds 0, 1 and 2."""
ROWS = 400


def add(client, experiment, params, metrics, tags=None, status="FINISHED") -> str:
    """A run of a store, by what it is to hold; returns its id."""
    run = client.create_run(experiment, tags=tags or {})
    values = [Metric(k, v, 0, 0) for k, v in metrics.items()]
    client.log_batch(run.info.run_id, values, [Param(k, str(v)) for k, v in params.items()])
    client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def kept(folder, mean: float, seed: int) -> np.ndarray:
    """Examples of a test in a run folder, with a given mean; of another seed other noise about the same rows."""
    folder.mkdir(parents=True)
    values = np.random.default_rng(99).normal(0, 3, ROWS) + np.random.default_rng(seed).normal(0, 1, ROWS)
    values += mean - values.mean()
    pd.DataFrame({"psnr": values, "label": 0}).to_parquet(folder / account.EXAMPLES)
    return values


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """(output folder, ids by kind, examples by kind): three seeds of three kinds; the examples of seed 0 of two."""
    home = tmp_path_factory.mktemp("compared") / "outputs"
    client, artifacts = tracking.connect(None, str(home))
    experiment = tracking.experiment(client, "aelab-denoise", artifacts)
    conv, median = {"model": "conv_ae"}, {"model": "median", "model.size": 3}
    old = COMMON | conv | {"model.bottleneck": 16, "seed": 0, "dataset.seed": 0, "dataset.data_dir": "elsewhere"}
    add(client, experiment, old, {"test/psnr": 5, "test/mse": 9})  # the same again follows
    ids = {}
    for kind, values in PSNR.items():
        own = median if kind == "median" else conv | {"model.bottleneck": kind}
        for seed, psnr in enumerate(values):
            metrics = {"test/psnr": psnr, "test/mse": 30 - psnr, "test/ndcg_at_10": psnr / 100}
            params = COMMON | own | {"seed": seed, "dataset.seed": seed}
            ids.setdefault(kind, []).append(add(client, experiment, params, metrics, {"aelab.device": "CPU"}))
    examples = {}
    for number, (size, psnr) in enumerate({"7": 19.0, "9": 19.1}.items()):
        examples[size] = kept(home / size, psnr, number)
        tags = {"aelab.folder": str(home / size), "aelab.test_fingerprint": "abc"}
        params = COMMON | {"model": "filter", "model.size": size, "seed": 0}
        ids[size] = add(client, experiment, params, {"test/psnr": psnr, "test/mse": 1}, tags)
    add(client, experiment, {}, {"sweep/jobs": 9})  # the parent of a sweep
    add(client, experiment, old | {"fit.epochs": 4}, {"test/psnr": 99}, status="FAILED")
    return home, ids, examples


@pytest.fixture
def told(store, capsys, monkeypatch):
    """What the command prints on standard output."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*words: str) -> str:
        capsys.readouterr()
        assert compare.compare([f"output_dir={store[0]}", *words]) == 0
        return capsys.readouterr().out

    return call


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def floats(row: dict, *names: str) -> list[float]:
    return [float(row[name]) for name in names]


def test_seeds_are_one_group_and_the_best_comes_first(told, store):
    found = rows(told("--csv", "model=conv_ae,median"))
    assert [(r["model"], r["model.bottleneck"], r["n"]) for r in found] == [
        ("conv_ae", "32", "3"),
        ("conv_ae", "16", "3"),
        ("median", "", "3"),
    ]
    names = ("test/psnr", "test/psnr_sd", "test/psnr_ci_low", "test/psnr_ci_high")
    assert floats(found[1], *names) == pytest.approx([21, 1, 21 - 2.4841377, 21 + 2.4841377])  # t(2) 4.302653 / sqrt 3
    values = PSNR["32"]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert floats(found[0], *names[2:]) == pytest.approx(expected)
    assert found[0]["runs"].split() == [store[1]["32"][i] for i in (1, 2, 0)]  # of a group too, the best first


def test_only_what_differs_is_a_column(told):
    """The size follows from the model, as every median has the same; all else is the same, or differs with the seed."""
    assert list(rows(told("--csv", "model=conv_ae,median"))[0])[:3] == ["model", "model.bottleneck", "n"]
    assert list(rows(told("--csv", "model=conv_ae"))[0])[:2] == ["model.bottleneck", "n"]
    assert list(rows(told("--csv", "model=median,filter"))[0])[:3] == ["model", "model.size", "n"]


def test_a_metric_whose_goal_is_min_ranks_the_other_way(told):
    found = rows(told("--csv", "model=conv_ae", "--metric", "mse,psnr"))
    assert [float(r["test/mse"]) for r in found] == pytest.approx([30 - 24.2, 9])
    found = rows(told("--csv", "model=conv_ae", "--metric", "mse:max"))
    assert [float(r["test/mse"]) for r in found] == pytest.approx([9, 30 - 24.2])


def test_groups_by_what_is_asked_for(told):
    found = rows(told("--csv", "model!=filter", "--group-by", "model"))
    assert [(r["model"], r["n"]) for r in found] == [("conv_ae", "6"), ("median", "3")]
    assert float(found[0]["test/psnr"]) == pytest.approx((20 + 21 + 22 + 23 + 25 + 24.6) / 6)
    assert len(rows(told("--csv", "model=conv_ae", "--group-by", "run"))) == 7  # the older one of the same too


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["seed=0"], 5),
        (["seed!=0"], 6),
        (["test/psnr>=20", "test/psnr<23"], 3),
        (["model.bottleneck>16"], 3),
        (["model.bottleneck=16.0,32"], 6),
        (["model.bottleneck=null"], 5),
        (["device=cpu", "model=median"], 3),
        (["test/ndcg@10>0.21"], 4),
        (["status=failed"], 1),
        (["dataset=digits"], 11),
    ],
)
def test_filters(told, words, count):
    assert sum(int(row["n"]) for row in rows(told("--csv", *words))) == count


@pytest.mark.parametrize(
    ("word", "value", "fits"),
    [
        ("x=[8,16]", "[8, 16]", True),
        ("x=[8,16],[4]", "[4]", True),
        ("x=true", "True", True),
        ("x=1e-3", "0.001", True),
        ("x!=1", None, True),
        ("x<1", None, False),
        ("x<1", "small", False),
        ("x<10", "9", True),  # as text it is more
        ("x<=0.3", 0.3, True),
        ("x>0.3", 0.3, False),
    ],
)
def test_a_filter_and_a_value(word, value, fits):
    assert query.parse(word).fits(query.Run("", {}, {}, {} if value is None else {"x": value})) is fits


def test_differences_are_paired_by_seed(told):
    found = {r["model.bottleneck"]: r for r in rows(told("--csv", "model!=filter", "--baseline", "model=median"))}
    row = found["32"]  # pairs of 5, 6.5 and 5.2
    assert (row["test/psnr_paired_by"], float(row["test/psnr_difference"])) == ("3 seeds", pytest.approx(16.7 / 3))
    low, high = floats(row, "test/psnr_difference_low", "test/psnr_difference_high")
    assert (low, high) == pytest.approx((5, 6.5))  # 1 in 27 resamples is the first pair alone: more than 2.5 %
    assert {r["baseline"]: r["test/psnr_difference_low"] for r in found.values()}["True"] == "0.0"


def test_differences_are_paired_by_example(told, store):
    examples = store[2]
    (best, base) = rows(told("--csv", "model=filter", "--baseline", store[1]["7"][:12]))
    assert (best["model.size"], base["baseline"]) == ("9", "True")
    pairs = examples["9"] - examples["7"]
    assert best["test/psnr_paired_by"] == f"{ROWS} examples"
    ends = floats(best, "test/psnr_difference_low", "test/psnr_difference_high")
    half = 1.96 * pairs.std() / ROWS**0.5
    assert ends == pytest.approx([pairs.mean() - half, pairs.mean() + half], abs=0.01)
    assert half < 0.5 * 1.96 * (2 * examples["7"].var() / ROWS) ** 0.5  # what it would be without pairs


def test_where_nothing_pairs_there_is_no_interval(told, store):
    (row,) = (r for r in rows(told("--csv", "model.size=9", "--baseline", "model=median")) if r["n"] == "1")
    assert (row["test/psnr_paired_by"], row["test/psnr_difference_low"]) == ("", "")
    assert float(row["test/psnr_difference"]) == pytest.approx(19.1 - 55.9 / 3)
    (best, _) = rows(told("--csv", "model=filter", "--baseline", "model.size=7", "--metric", "mse"))
    assert best["test/mse_paired_by"] == ""  # their files have no such column


def test_a_filter_on_what_the_baseline_names_is_not_for_it(told):
    found = rows(told("--csv", "model.bottleneck>16", "seed<2", "--baseline", "model.bottleneck=16"))
    assert [(r["model.bottleneck"], r["n"], r["baseline"]) for r in found] == [
        ("32", "2", "False"),
        ("16", "2", "True"),
    ]
    assert float(found[0]["test/psnr_difference"]) == pytest.approx(3.5)


def test_a_baseline_may_be_what_filters_leave_out(told):
    found = rows(told("--csv", "model=conv_ae", "model.bottleneck>16", "test/psnr>23", "--baseline", "model=median"))
    assert [(r["model"], r["n"]) for r in found] == [("conv_ae", "2"), ("median", "3")]
    assert found[0]["test/psnr_paired_by"] == "2 seeds"
    assert float(found[0]["test/psnr_difference"]) == pytest.approx((6.5 + 5.2) / 2)


def run_of(folder, frame: pd.DataFrame, mean: float) -> query.Run:
    """A run that kept some examples."""
    folder.mkdir()
    frame.to_parquet(folder / account.EXAMPLES)
    return query.Run(folder.name, {}, {"test/nll": mean}, {"folder": str(folder), "test_fingerprint": "abc"})


def test_examples_count_only_where_their_mean_is_the_metric(tmp_path):
    frame = pd.DataFrame({"nll": [1.0, 2.0, 6.0], "scored": [True, False, True]})
    run = run_of(tmp_path / "one", frame, 3.5)
    assert paired.by_example(run, "test/nll")[1].tolist() == [1, 6]
    assert paired.by_example(run_of(tmp_path / "two", frame, 3.0), "test/nll") is None
    assert paired.by_example(run._replace(facts=run.facts | {"folder": str(tmp_path)}), "test/nll") is None
    users = run_of(tmp_path / "users", frame[["nll"]].set_axis([4, 5, 7]), 3.0)
    others = run_of(tmp_path / "others", frame[["nll"]].set_axis([4, 5, 8]), 3.0)
    assert paired.by_example(users, "test/nll")[0] != paired.by_example(others, "test/nll")[0]
    (tmp_path / "one" / account.EXAMPLES).write_bytes(b"PAR1, but no more")
    with pytest.raises(AelabError, match="cannot be read as Parquet"):
        paired.by_example(run, "test/nll")


def test_pairs_of_each_key_are_means_and_what_has_no_pair_is_left_out():
    one, two, other = np.array([1.0, 2]), np.array([3.0, 6]), np.array([9.0])
    found = paired.differences([("a", one), ("a", two), ("b", other)], [("a", np.zeros(2)), ("c", other)])
    assert found.tolist() == [2, 4]


def test_intervals_are_those_of_scipy():
    samples = [np.random.default_rng(i).exponential(size=n) for i, n in enumerate((60, 60, 2000))]
    for sample, ends in zip(samples, paired.intervals(samples), strict=True):
        known = stats.bootstrap((sample,), np.mean, method="percentile", n_resamples=5000, rng=1).confidence_interval
        assert ends == pytest.approx(known, abs=0.06 * (known.high - known.low))
    assert paired.intervals(samples[:1]) == pytest.approx(paired.intervals(samples)[:1])
    assert np.isnan(paired.intervals([np.empty(0), np.ones(1)])).all()


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("test/psnr", "max"),
        ("test/mse_gain", "max"),
        ("test/mse_input", "min"),
        ("test/ndcg@10", "max"),
        ("test/recall_at", "max"),
        ("test/rmse", "min"),
        ("time/fit_s", "min"),
        ("test/threshold", None),
    ],
)
def test_which_direction_is_better(metric, goal):
    goals = {"psnr": "max", "mse": "min", "ndcg": "max", "recall_at": "max"}
    assert compare.direction(metric, {f"metric.{name}.goal": goal for name, goal in goals.items()}) == goal


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["modle=x"], "modle: no run has it; nearest are: model"),
        (["psrn>3"], "psrn: no run has it; nearest are:.* test/psnr"),
        (["model"], "model: expected a filter: model=unet_mini"),
        (["model.size<small"], "model.size<small: expected a number after <"),
        (["model=unet", "seed=1"], "model=unet seed=1: fits none of the 12 runs of aelab-denoise"),
        (["task=denoize"], "task=denoize: no such task; there are: .*denoise"),
        (["task=anomaly"], "experiment aelab-anomaly: has no finished runs; there are: aelab-denoise"),
        (["--metric", "ssim"], "ssim: no run has it; nearest are: test/mse"),
        (["--metric", "ndcg@10"], "--metric test/ndcg@10: is more of it better"),
        (["--group-by", "bottleneck"], "bottleneck: no run has it; nearest are: model.bottleneck"),
        (["--baseline", "zz"], "--baseline zz: 0 runs have such an id"),
        (["--baseline", "model=unet"], "--baseline model=unet: fits none"),
        (["--baseline", "model=conv_ae"], "fits 2 kinds of runs; choose .* --baseline model.bottleneck="),
        (["--csv", "--md"], "--md: not allowed with argument --csv"),
        (["--sort"], "unrecognized arguments: --sort"),
        (["output_dir=nowhere"], "nowhere/mlflow.db: there are no runs yet"),
    ],
)
def test_errors_say_what_to_type(store, words, said, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(AelabError, match=said) as error:
        compare.compare([*words, f"output_dir={store[0]}"])
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ConfigError) or "runs" in said


def test_the_forms_say_the_same(told):
    words = ("model=conv_ae,median", "--baseline", "model=median")
    table, found = rows(told("--csv", *words)), json.loads(told("--json", *words))
    assert [float(r["test/psnr"]) for r in table] == [r["test/psnr"] for r in found]
    assert found[0]["runs"] == table[0]["runs"].split()
    text = told(*words)
    assert "9 runs of aelab-denoise" in text
    assert "left out: 1 older with all the same values" in " ".join(text.split())
    lines = told("--md", *words).splitlines()
    assert lines[0] == "| model | model.bottleneck | n | test/psnr | test/psnr difference | best run |"
    assert lines[2].startswith(
        "| conv_ae | 32 | 3 | 24.2 ± 1.1 *<br>21.57 to 26.83 | +5.57<br>+5 to +6.5<br>by 3 seeds |"
    )
    assert json.loads(told("--json", "seed=1", "model=median"))[0]["test/psnr_sd"] is None  # NaN is no JSON


def test_what_does_not_fit_the_terminal_stands_in_one_column(told):
    wide, text = told("model=conv_ae,median"), told("model!=unet", "--baseline", "model=median")
    assert "differs in" not in wide
    assert "differs in" in text  # two would fit beside the figures; model.size is the third
    assert "model.bottleneck=32" in text


def test_runs_of_the_command_are_compared_by_the_command(tmp_path):
    commands.done("-m", *commands.BASELINE[:-1], "model.size=3,5", cwd=tmp_path)
    result = commands.done("compare", "task=denoise", "--baseline", "model.size=3", "--csv", cwd=tmp_path)
    found = {row["model.size"]: row for row in rows(result.stdout)}
    stored = [run.data for run in commands.runs(commands.client(tmp_path)) if run.data.params]
    known = {data.params["model.size"]: data.metrics["test/psnr"] for data in stored}
    assert {size: float(row["test/psnr"]) for size, row in found.items()} == pytest.approx(known)
    assert float(found["5"]["test/psnr_difference"]) == pytest.approx(known["5"] - known["3"])
    assert found["5"]["test/psnr_paired_by"].endswith(" examples")


def test_nothing_heavy_is_imported(store):
    code = "import sys; from aelab import compare; compare.compare(sys.argv[1:]); print(*sys.modules)"
    words = (f"output_dir={store[0]}", "model=filter", "--baseline", "model.size=7", "--csv")
    result = commands.done(*words, cwd=store[0], program=(sys.executable, "-c", code))
    assert "400 examples" in result.stdout
    loaded = set(result.stdout.splitlines()[-1].split())
    assert not loaded & {"tensorflow", "keras", "matplotlib", "sklearn", "torch", "scipy.stats"}
