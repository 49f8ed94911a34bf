"""Tables of rows to search for anomalies: read, checked, cut, encoded, and never learnt from what is held out."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from contract import listed
from omegaconf import OmegaConf
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from aelab import compose
from aelab.config import ConfigError, DataError, DataUnavailable
from aelab.data import nsl_kdd as nsl
from aelab.data.frames import read_frame
from aelab.data.load import load

PARTS = ("train", "validation", "test")
FILE = {"names": None, "header": True, "delimiter": ",", "missing": []}
"""How a file is read, where it is a plain one."""


@pytest.fixture(autouse=True)
def no_network_no_home(monkeypatch, tmp_path):
    """Downloads go to an empty cache, and nothing leaves the machine by way of a proxy."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


def node(name, folder=None, **knobs):
    """The YAML of a data set, resolved, with some values changed."""
    found = OmegaConf.load(compose.CONF / "dataset" / f"{name}.yaml")
    root = found if "dataset" in found else OmegaConf.create({"dataset": found})
    given = {key: knobs.pop(key) for key in list(root) if key in knobs}
    root = OmegaConf.merge(root, {"seed": 0, "data_dir": folder and str(folder)}, given)
    resolved = OmegaConf.to_container(root, resolve=True)["dataset"]
    assert set(knobs) <= set(resolved)
    return OmegaConf.create(resolved | knobs)


def table(name, folder=None, **knobs):
    """The data of a data set, without a fallback."""
    made = node(name, folder, **knobs)
    return load({k: v for k, v in made.items() if k != "fallback"}, None)[0]


def own(path, **knobs):
    """The data of a file of the user's, in which 1 in the column "label" is an anomaly."""
    return table("csv", path=str(path), **{"label": "label", "positive": 1} | knobs)


def some_rows(n=200, strange=40, seed=0) -> pd.DataFrame:
    """Numbers (some missing), whole numbers that are codes, and texts; no row twice."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) < strange).astype(int)
    return pd.DataFrame(
        {
            "amount": (rng.normal(100, 20, n) + 300 * label).round(4),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 90, n)),
            "kind": rng.choice(["card", "cash", "wire"], n),
            "code": rng.choice([1, 2, 10], n),
            "label": label,
        }
    )


def same(one, two, parts=PARTS):
    """That the columns and the rows of two data sets are the same, bit for bit."""
    assert one.columns == two.columns
    for part in parts:
        np.testing.assert_array_equal(getattr(one, part).x, getattr(two, part).x)
        np.testing.assert_array_equal(getattr(one, part).y, getattr(two, part).y)


# ---- every table data set, from small files in the form that is published


def creditcard_files(folder):
    """As ULB publishes it, in gzip."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 28)).round(6), columns=[f"V{i}" for i in range(1, 29)])
    frame.insert(0, "Time", rng.permutation(400))
    frame["Amount"] = rng.gamma(2, 40, 400).round(2)
    frame["Class"] = rng.permutation(np.arange(400) < 40).astype(int)
    (folder / "creditcard").mkdir()
    frame.to_csv(folder / "creditcard" / "creditcard.csv.gz", index=False)
    return frame


ATTACKS = {"dos": "neptune", "probe": "satan", "r2l": "guess_passwd", "u2r": "rootkit"}


def nsl_kdd_files(folder):
    """As UNB publishes it: 41 features, label, difficulty; no header."""
    (folder / "nsl-kdd").mkdir()
    for seed, (file, n) in enumerate({"KDDTrain+_20Percent.txt": 200, "KDDTest+.txt": 120}.items()):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(rng.random((n, 43)).round(6)).astype(object)
        for column, values in {1: ["tcp", "udp", "icmp"], 2: ["http", "private", "ftp_data"], 3: ["SF", "S0"]}.items():
            frame[column] = rng.choice(values, n)
        frame[41] = np.where(np.arange(n) % 2, "normal", np.resize([*ATTACKS.values()], n // 2).repeat(2))
        frame[42] = rng.integers(0, 22, n)
        frame.to_csv(folder / "nsl-kdd" / file, index=False, header=False)


def arrhythmia_files(folder):
    """As UCI publishes it: 279 features, the diagnosis last; no header, and ? where nothing is known."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(70, 20, (150, 280)).round(2)).astype(object)
    frame.iloc[rng.random(150) < 0.2, 10] = "?"
    frame.iloc[rng.random(150) < 0.8, 13] = "?"
    frame[279] = rng.permutation(np.resize([1, 1, 2, 10, 16], 150))
    (folder / "arrhythmia").mkdir()
    frame.to_csv(folder / "arrhythmia" / "arrhythmia.data", index=False, header=False)


UNSW = """
id dur proto service state spkts dpkts sbytes dbytes rate sttl dttl sload dload sloss dloss sinpkt dinpkt sjit djit swin
stcpb dtcpb dwin tcprtt synack ackdat smean dmean trans_depth response_body_len ct_srv_src ct_state_ttl ct_dst_ltm
ct_src_dport_ltm ct_dst_sport_ltm ct_dst_src_ltm is_ftp_login ct_ftp_cmd ct_flw_http_mthd ct_src_ltm ct_srv_dst
is_sm_ips_ports attack_cat label
"""
KINDS_OF_ATTACKS = (" Fuzzers", "Analysis", "Backdoors", "DoS", "Exploits", "Generic", "Reconnaissance ", "Worms")


def unsw_nb15_files(folder):
    """As UNSW Canberra publishes it: a byte order mark before the header, spaces about some kinds of attacks."""
    (folder / "unsw-nb15").mkdir()
    for seed, (part, n) in enumerate({"training": 160, "testing": 96}.items()):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(rng.random((n, 45)).round(6), columns=UNSW.split())
        frame["id"] = np.arange(1, n + 1)
        for column, values in {"proto": ["tcp", "udp"], "service": ["-", "dns"], "state": ["FIN", "INT"]}.items():
            frame[column] = rng.choice(values, n)
        kinds = np.resize([*KINDS_OF_ATTACKS, "Shellcode"], n)
        frame["attack_cat"] = np.where(np.arange(n) % 2, "Normal", kinds)
        frame["label"] = (frame["attack_cat"] != "Normal").astype(int)
        frame.to_csv(folder / "unsw-nb15" / f"UNSW_NB15_{part}-set.csv", index=False, encoding="utf-8-sig")


def csv_files(folder):
    """The user's own file."""
    some_rows().to_csv(folder / "mine.csv", index=False)
    return {"path": str(folder / "mine.csv"), "label": "label", "positive": 1}


FILES = {
    "creditcard": creditcard_files,
    "nsl_kdd": nsl_kdd_files,
    "arrhythmia": arrhythmia_files,
    "unsw_nb15": unsw_nb15_files,
    "csv": csv_files,
    "breast_cancer": lambda folder: None,
}
FAMILIES = {
    "nsl_kdd": ("normal", *ATTACKS, "other"),
    "unsw_nb15": (
        "normal",
        *("fuzzers", "analysis", "backdoor", "dos", "exploits", "generic", "reconnaissance", "shellcode", "worms"),
        "other",
    ),
    "breast_cancer": ("normal", "malignant"),
}


@pytest.mark.parametrize("name", listed("dataset", "table"))
class TestTables:
    """What every table data set promises: a new YAML comes under test, and needs small files in `FILES`."""

    @pytest.fixture(autouse=True)
    def files(self, name, tmp_path):
        made = FILES[name](tmp_path)
        self.name, self.folder, self.knobs = name, tmp_path, made if isinstance(made, dict) else {}

    def load(self, **knobs):
        return table(self.name, self.folder, **self.knobs | knobs)

    def test_rows_are_float64_and_finite_or_missing(self):
        data = self.load()
        assert data.kind == "table"
        for part in PARTS:
            split = getattr(data, part)
            assert len(split) == len(split.x) > 0
            assert split.x.dtype == np.float64
            assert split.x.shape[1:] == data.shape == (len(data.columns.names),)
            assert not np.isinf(split.x).any()

    def test_categories_are_codes(self):
        data = self.load()
        for name, known in data.columns.categories.items():
            assert known == sorted(set(known))
            for part in PARTS:
                codes = getattr(data, part).x[:, data.columns.names.index(name)]
                assert set(codes) <= set(range(len(known) + 1))

    def test_labels_count_into_their_names(self):
        data = self.load()
        assert data.label_names == FAMILIES.get(self.name, ("normal", "anomaly"))
        for part in PARTS:
            split = getattr(data, part)
            assert split.y.dtype == np.int64
            assert split.y.shape == (len(split),)
        known = set(range(len(data.label_names))) - (
            {len(data.label_names) - 1} if "other" in data.label_names else set()
        )
        assert set(data.test.y) == known

    def test_training_is_normal_alone_and_the_rest_has_both(self):
        data = self.load()
        assert set(data.train.y) == {0}
        for split in (data.validation, data.test):
            assert 0 < np.mean(split.y > 0) < 1

    def test_no_row_is_in_two_splits(self):
        data = self.load()
        rows = [x.tobytes() for part in PARTS for x in getattr(data, part).x]
        assert len(set(rows)) == len(rows)

    def test_same_seed_same_data(self):
        one, two = self.load(seed=3), self.load(seed=3)
        same(one, two)
        assert one.fingerprint == two.fingerprint
        assert len(one.fingerprint) == 64

    def test_another_seed_cuts_other_validation_rows_and_the_same_test_rows(self):
        one, two = self.load(seed=1), self.load(seed=2)
        assert len(one.validation) == len(two.validation)
        assert not np.array_equal(one.validation.x, two.validation.x)
        np.testing.assert_array_equal(one.test.x, two.test.x)
        np.testing.assert_array_equal(one.test.y, two.test.y)

    def test_fingerprint_is_of_the_source(self):
        assert len({self.load(**knobs).fingerprint for knobs in ({"seed": 1}, {"seed": 2}, {"limit": 9})}) == 1

    def test_limit_bounds_every_split_after_the_cut(self):
        whole, few = self.load(), self.load(limit=20)
        for part in PARTS:
            split, rows = getattr(few, part), {x.tobytes() for x in getattr(whole, part).x}
            assert len(split) == min(20, len(rows))
            assert {x.tobytes() for x in split.x} <= rows
            share = np.mean(getattr(whole, part).y > 0)
            assert np.mean(split.y > 0) == pytest.approx(share, abs=1 / 20 + 1e-9)  # as many of each kind

    def test_contamination_mixes_in_the_share_that_was_asked_for(self):
        clean, mixed = self.load(), self.load(contamination=0.05)
        count = round(len(clean.train) * 0.05 / 0.95)
        assert count > 0
        assert np.sum(mixed.train.y > 0) == count
        np.testing.assert_array_equal(mixed.train.x[mixed.train.y == 0], clean.train.x)
        same(mixed, clean, ("validation", "test"))
        held = {x.tobytes() for part in PARTS for x in getattr(clean, part).x}
        assert held.isdisjoint(x.tobytes() for x in mixed.train.x[mixed.train.y > 0])

    @pytest.mark.parametrize("share", [0.97, 1.0])
    def test_contamination_beyond_the_anomalies_that_there_are(self, share):
        with pytest.raises(
            ConfigError, match=rf"dataset\.contamination={share}: that takes .*; at most 0\.\d+"
        ) as error:
            self.load(contamination=share)
        most = float(re.search(r"at most (0\.\d+)", str(error.value))[1])
        assert np.mean(self.load(contamination=most - 1e-4).train.y > 0) == pytest.approx(most, abs=0.01)

    def test_says_where_it_comes_from(self):
        data = self.load()
        assert data.name == self.name
        assert data.source
        assert data.licence


# ---- the data sets by name


def as_published(frame, data):
    """The credit card split that others report on: one stratified draw."""
    rest, held = train_test_split(frame, test_size=0.2, stratify=frame["Class"], random_state=42)
    features = [c for c in frame if c != "Class"]
    assert data.columns.names == features
    np.testing.assert_array_equal(data.test.x, held[features].to_numpy(float))
    np.testing.assert_array_equal(data.test.y, held["Class"])
    assert len(data.validation) == -(-len(rest) // 5)
    rows = {x.tobytes() for x in rest.loc[rest["Class"] == 0, features].to_numpy(float)}
    calm = np.concatenate([data.train.x, data.validation.x[data.validation.y == 0]])
    assert {x.tobytes() for x in calm} == rows


def test_creditcard_split_is_the_one_that_others_report_on(tmp_path):
    frame = creditcard_files(tmp_path)
    as_published(frame, table("creditcard", tmp_path))


def test_creditcard_in_the_order_of_time(tmp_path):
    frame = creditcard_files(tmp_path).sort_values("Time")
    data = table("creditcard", tmp_path, time="Time")
    np.testing.assert_array_equal(data.test.x, frame.drop(columns="Class").tail(80).to_numpy(float))
    np.testing.assert_array_equal(np.sort(data.validation.x[:, 0]), np.arange(256, 320))
    assert data.train.x[:, 0].max() < 256
    same(data, table("creditcard", tmp_path, time="Time", seed=9))  # the clock cuts, not the seed


def test_without_files_and_network_the_fallback_is_said():
    data, why = load(node("creditcard", urls={}, limit=50), lambda name: node(name))
    assert (data.name, len(data.test)) == ("breast_cancer", 50)
    assert "breast_cancer" in why
    assert "$AELAB_DATA_DIR/creditcard/" in why
    with pytest.raises(DataUnavailable, match=r"arrhythmia/arrhythmia\.data is not in"):
        table("arrhythmia")


def test_breast_cancer_is_scikit_learns_with_malignant_as_anomalous():
    frame = load_breast_cancer(as_frame=True)
    data = table("breast_cancer", contamination=0.0)
    assert (len(data.train), len(data.validation), len(data.test)) == (200, 80, 171)
    assert data.columns.names == list(frame.data.columns)
    malignant = {x.tobytes() for x in frame.data[frame.target == 0].to_numpy()}
    for part in PARTS:
        split = getattr(data, part)
        np.testing.assert_array_equal([x.tobytes() in malignant for x in split.x], split.y > 0)


def test_arrhythmia_counts_question_marks_as_missing(tmp_path):
    arrhythmia_files(tmp_path)
    data = table("arrhythmia", tmp_path)
    assert len(data.columns.names) == 278
    assert "f14" not in data.columns.names
    assert data.columns.categories == {}
    missing = np.isnan(np.concatenate([getattr(data, part).x for part in PARTS]))
    assert set(np.flatnonzero(missing.any(axis=0))) == {data.columns.names.index("f11")}
    assert f"{missing.sum():,} missing values" in data.notes


def test_nsl_kdd_names_families_of_attacks(tmp_path):
    nsl_kdd_files(tmp_path)
    data = table("nsl_kdd", tmp_path)
    assert len(data.columns.names) == 41
    assert "difficulty" not in data.columns.names
    assert list(data.columns.categories) == ["protocol_type", "service", "flag"]
    assert data.columns.categories["protocol_type"] == ["icmp", "tcp", "udp"]
    lines = (tmp_path / "nsl-kdd" / "KDDTest+.txt").read_text().splitlines()
    names = {attack: family for family, attack in ATTACKS.items()} | {"normal": "normal"}
    assert [data.label_names[y] for y in data.test.y] == [names[line.split(",")[41]] for line in lines]
    np.testing.assert_array_equal(data.test.x[:, 0], [float(line.split(",")[0]) for line in lines])
    assert table("nsl_kdd", tmp_path, drop=["flag"]).columns.names == [n for n in data.columns.names if n != "flag"]


def test_nsl_kdd_asks_mirrors_for_the_file_by_its_quoted_name(tmp_path):
    with pytest.raises(
        DataUnavailable, match=r"KDDTrain\+_20Percent\.txt is not in .* could not be downloaded \(127\.0"
    ):
        table("nsl_kdd", tmp_path, mirrors=["http://127.0.0.1:9/"])
    with pytest.raises(DataUnavailable, match=r"KDDTrain\+\.txt is not in .*no mirrors are set"):
        table("nsl_kdd", tmp_path, train="full", mirrors=["http://127.0.0.1:9/"])


def test_every_attack_is_in_one_family():
    attacks = [attack for family in nsl.FAMILIES.values() for attack in family.split()]
    assert len(attacks) == len(set(attacks)) == 39


def test_unsw_nb15_as_published(tmp_path):
    unsw_nb15_files(tmp_path)
    data = table("unsw_nb15", tmp_path)
    assert len(data.columns.names) == 42
    assert {"id", "label", "attack_cat"}.isdisjoint(data.columns.names)
    assert data.columns.categories == {"proto": ["tcp", "udp"], "service": ["-", "dns"], "state": ["FIN", "INT"]}
    kinds = [kind.strip().lower().replace("backdoors", "backdoor") for kind in (*KINDS_OF_ATTACKS, "Shellcode")]
    told = [data.label_names[y] for y in data.test.y]
    assert told[::2] == list(np.resize(kinds, 96)[::2])
    assert set(told[1::2]) == {"normal"}


def test_unsw_nb15_differs_from_csv_by_its_yaml_alone(tmp_path):
    unsw_nb15_files(tmp_path)
    named, mine = node("unsw_nb15", tmp_path), node("csv", path="a", label="b", positive=1)
    assert named["_target_"] == mine["_target_"]
    assert set(named) - {"fallback"} == set(mine)
    asked = {k: named[k] for k in ("normal", "positive", "families", "categorical", "drop")}
    folder = tmp_path / "unsw-nb15"
    data = own(
        folder / "UNSW_NB15_training-set.csv",
        test_path=str(folder / "UNSW_NB15_testing-set.csv"),
        label="attack_cat",
        **asked,
    )
    same(data, table("unsw_nb15", tmp_path))
    assert data.label_names == FAMILIES["unsw_nb15"]
    sources = [file.read_text().lower() for file in (compose.CONF.parent / "aelab").rglob("*.py")]
    assert sources
    assert not any("unsw" in source for source in sources)


# ---- the user's own file: forms of files, labels and time


@pytest.fixture
def frame():
    return some_rows()


@pytest.fixture
def mine(tmp_path, frame):
    """A file of the user's."""
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return tmp_path / "mine.csv"


def test_csv_gzip_and_parquet_give_the_same_data(mine, frame, tmp_path):
    frame.to_csv(tmp_path / "mine.csv.gz", index=False)
    frame.to_parquet(tmp_path / "mine.parquet")
    frame.astype({"age": "Int64", "kind": "category"}).to_parquet(tmp_path / "typed.parquet")
    frame.to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    mine.with_name("windows.csv").write_bytes(b"\xef\xbb\xbf" + mine.read_bytes().replace(b"\n", b"\r\n"))
    plain = own(mine)
    assert (len(plain.train), len(plain.validation), len(plain.test)) == (102, 32, 40)  # 26 anomalies are left out
    for name, knobs in {
        "mine.csv.gz": {},
        "mine.parquet": {},
        "typed.parquet": {},
        "semicolons.csv": {"delimiter": ";"},
        "windows.csv": {},
    }.items():
        data = own(tmp_path / name, **knobs)
        for part in PARTS:
            np.testing.assert_array_equal(getattr(data, part).x, getattr(plain, part).x, err_msg=name)
        assert data.columns.categories == plain.columns.categories
        if name != "typed.parquet":
            assert data.fingerprint == plain.fingerprint, name


def test_fingerprint_sees_values_and_labels(frame, tmp_path):
    marks = set()
    for row, column in ((None, None), (7, "amount"), (7, "kind"), (7, "label")):
        changed = frame.copy()
        if column:
            changed.loc[row, column] = {"amount": 1.5, "kind": "coin", "label": 1 - changed.loc[row, "label"]}[column]
        changed.to_csv(tmp_path / "changed.csv", index=False)
        marks.add(own(tmp_path / "changed.csv").fingerprint)
    assert len(marks) == 4


def test_rows_keep_their_values(mine, frame):
    data = own(mine)
    assert data.columns.names == ["amount", "age", "kind", "code"]
    assert data.columns.categories == {"kind": ["card", "cash", "wire"]}  # the one without any number
    _, held = train_test_split(frame, test_size=0.2, stratify=frame["label"], random_state=42)
    codes = held["kind"].map({"card": 0, "cash": 1, "wire": 2})
    np.testing.assert_array_equal(data.test.x, held.assign(kind=codes).drop(columns="label").to_numpy(float))
    assert [data.columns.value(j, data.test.x[0, j]) for j in (0, 2, 3)] == [
        f"{held.iloc[0]['amount']:.6g}",
        held.iloc[0]["kind"],
        str(held.iloc[0]["code"]),
    ]
    assert data.columns.value(1, np.nan) == "empty"
    assert data.columns.value(2, 3.0) == "other"


def test_codes_are_categories_where_asked_for(mine):
    data = own(mine, categorical=["kind", "code"], drop=["age"])
    assert data.columns.names == ["amount", "kind", "code"]
    assert data.columns.categories == {"kind": ["card", "cash", "wire"], "code": ["1", "10", "2"]}


def test_a_file_without_a_header(frame, tmp_path):
    frame.to_csv(tmp_path / "bare.csv", index=False, header=False)
    same_names = own(tmp_path / "bare.csv", header=False, names=["amount", "age", "kind", "code", "label"])
    numbered = own(tmp_path / "bare.csv", header=False, label="f5")
    assert numbered.columns.names == ["f1", "f2", "f3", "f4"]
    for part in PARTS:
        np.testing.assert_array_equal(getattr(numbered, part).x, getattr(same_names, part).x)


WRITTEN = {
    "numbers": ([0, 1], {"positive": [1, "1", 1.0, [1], ["1"], [1.0]], "normal": [0, "0", 0.0, [0.0, 5]]}),
    "decimals": ([0.0, 1.0], {"positive": [1, "1", 1.0, "1.0"], "normal": [0, 0.0]}),
    "texts": (["fine", "bad"], {"positive": ["bad", ["bad", "worse"]], "normal": ["fine"]}),
    "spaced": (["fine ", " bad"], {"positive": ["bad"], "normal": ["fine"]}),
    "logical": ([False, True], {"positive": [True, "True"], "normal": [False]}),
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_in_every_form(form, ending, frame, tmp_path):
    values, asked = WRITTEN[form]
    expected, written = frame["label"].to_numpy(), frame.assign(label=[values[i] for i in frame["label"]])
    file = tmp_path / f"mine.{ending}"
    written.to_csv(file, index=False) if ending == "csv" else written.to_parquet(file)
    for side, forms in asked.items():
        for given in forms:
            data = own(file, **{"positive": None, "normal": None, side: given})
            _, held = train_test_split(expected, test_size=0.2, stratify=expected, random_state=42)
            np.testing.assert_array_equal(data.test.y, held, err_msg=f"{side}={given!r}")


def test_families_of_the_users_own(frame, tmp_path):
    kinds = np.array(["fine", "7", "8", "9"])[np.where(frame["label"] == 0, 0, 1 + np.arange(len(frame)) % 3)]
    frame.assign(label=kinds).to_csv(tmp_path / "mine.csv", index=False)
    data = own(tmp_path / "mine.csv", positive=None, normal="fine", families={"seven": [7], "eight": ["8"]})
    assert data.label_names == ("normal", "seven", "eight", "other")
    _, held = train_test_split(kinds, test_size=0.2, stratify=kinds != "fine", random_state=42)
    assert [data.label_names[y] for y in data.test.y] == [
        {"fine": "normal", "7": "seven", "8": "eight", "9": "other"}[kind] for kind in held
    ]


@pytest.mark.parametrize("form", ["numbers", "dates"])
def test_the_latest_rows_are_the_test(form, frame, tmp_path):
    when = np.random.default_rng(1).permutation(len(frame))
    if form == "dates":
        frame["when"] = (pd.Timestamp("2024-01-31") + pd.to_timedelta(when, "h")).strftime("%Y-%m-%d %H:%M")
    else:
        frame["when"] = when * 0.5
    frame.to_csv(tmp_path / "mine.csv", index=False)
    data = own(tmp_path / "mine.csv", time="when", drop=["when"])
    ordered = frame.iloc[np.argsort(when)]
    np.testing.assert_array_equal(data.test.x[:, 0], ordered["amount"].tail(40))
    np.testing.assert_array_equal(data.validation.x[:, 0], ordered["amount"].iloc[128:160])
    calm = ordered.iloc[:128].query("label == 0")
    np.testing.assert_array_equal(np.sort(data.train.x[:, 0]), np.sort(calm["amount"]))


def test_a_file_of_test_rows(mine, tmp_path):
    held = some_rows(60, 30, seed=5)
    held[["label", "code", "kind", "age", "amount"]].to_csv(tmp_path / "held.csv", index=False)  # in another order
    data = own(mine, test_path=str(tmp_path / "held.csv"))
    assert (len(data.train), len(data.validation), len(data.test)) == (128, 40, 60)
    np.testing.assert_array_equal(data.test.x[:, :2], held[["amount", "age"]].to_numpy())
    np.testing.assert_array_equal(data.test.y, held["label"])


# ---- no leak: what is learnt is learnt from normal training rows


def lines_of(data, frame, *parts):
    """The row numbers in a frame of what lies in some parts, by the amount, which no two rows share."""
    found = {a for part in parts for a in getattr(data, part).x[:, 0]}
    return np.flatnonzero(frame["amount"].isin(found))


CODED = {"categorical": ["kind", "code"]}
CELLS = {
    "new category": {"kind": "coin", "code": "99"},
    "a text among numbers": {"code": "x"},
    "a fraction among whole numbers": {"code": "1.5"},
    "missing": {"kind": "", "code": "", "age": ""},
    "extreme": {"age": "1e300"},
    "negative": {"age": "-5"},
}


@pytest.mark.parametrize("written", ["1", "1.0", "01"])
@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("whose", ["test", "anomalies"])
def test_nothing_is_learnt_from_test_rows_or_anomalies(whose, cells, written, tmp_path):
    frame = some_rows().astype(object)
    frame["code"] = [{"1": "{}", "1.0": "{}.0", "01": "0{}"}[written].format(c) for c in frame["code"]]
    frame["age"] = [f"{age:.1f}" if age == age else "" for age in frame["age"]]
    frame.to_csv(tmp_path / "before.csv", index=False)
    before = own(tmp_path / "before.csv", **CODED)
    where = lines_of(before, frame, "test")
    if whose == "anomalies":
        where = np.setdiff1d(np.flatnonzero(frame["label"] == 1), where)
    assert len(where) >= 32
    for column, value in CELLS[cells].items():
        frame.loc[where[::2], column] = value  # of every other row: the rest are to be read as before
    frame.to_csv(tmp_path / "after.csv", index=False)
    after = own(tmp_path / "after.csv", **CODED)
    same(before, after, ("train", "validation") if whose == "test" else ("train", "test"))
    if whose == "anomalies":
        calm = before.validation.y == 0
        np.testing.assert_array_equal(before.validation.x[calm], after.validation.x[calm])
    changed = after.test if whose == "test" else after.validation
    was = before.test if whose == "test" else before.validation
    different = ~((was.x == changed.x) | (np.isnan(was.x) & np.isnan(changed.x)))
    assert 0 < different.any(axis=1).sum() <= len(where[::2])  # no other row was read in another way


def test_nothing_is_learnt_from_a_file_of_test_rows(mine, tmp_path):
    held = some_rows(60, 30, seed=5)
    held.to_csv(tmp_path / "held.csv", index=False)
    before = own(mine, test_path=str(tmp_path / "held.csv"), **CODED)
    held["label"] = 1 - held["label"]
    held["kind"], held["code"], held["age"] = "coin", 1.5, -1e9
    held.to_csv(tmp_path / "held.csv", index=False)
    after = own(mine, test_path=str(tmp_path / "held.csv"), **CODED)
    same(before, after, ("train", "validation"))
    np.testing.assert_array_equal(before.test.y, 1 - after.test.y)


def test_categories_are_those_of_normal_training_rows(frame, tmp_path):
    frame.loc[frame["label"] == 1, "kind"] = "stolen"
    frame.to_csv(tmp_path / "mine.csv", index=False)
    data = own(tmp_path / "mine.csv", contamination=0.1)
    assert data.columns.categories["kind"] == ["card", "cash", "wire"]
    for part in PARTS:
        split = getattr(data, part)
        np.testing.assert_array_equal(split.x[:, 2] == 3, split.y > 0)
        assert f"{part}, kind: {np.sum(split.y > 0):,} values not seen in training" in data.notes


def test_an_empty_cell_is_a_category_of_its_own(frame, tmp_path):
    frame.loc[::3, "kind"] = None
    frame.to_csv(tmp_path / "mine.csv", index=False)
    data = own(tmp_path / "mine.csv")
    assert data.columns.categories["kind"] == ["(missing)", "card", "cash", "wire"]
    assert "not seen" not in data.notes


def test_texts_that_stand_for_an_empty_cell(frame, tmp_path):
    ages = frame["age"].astype(object)
    ages[::10] = "unknown"
    frame.assign(age=ages).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(DataError, match="column age: expected finite numbers, got 'unknown' in line"):
        own(tmp_path / "mine.csv")
    data = own(tmp_path / "mine.csv", missing=["unknown"])
    assert np.isnan(data.test.x[:, 1]).any()


# ---- bad input: one line that says where and what to do


def refused(error, where, **knobs):
    """The message of the error that a file leads to: one line."""
    with pytest.raises(error) as caught:
        own(where, **knobs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("line", [2, 17, 101, 201])
@pytest.mark.parametrize("cell", ["much", "inf", "-inf", "1,000", "12%"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_bad_cell_is_named_by_file_line_and_column(line, cell, ending, frame, tmp_path):
    frame["label"] = np.arange(len(frame)) % 50 == 20  # none of these lines: what anomalies have is not trained on
    bad = frame.astype(object)
    bad.loc[line - 2, "amount"] = cell
    file = tmp_path / f"bad.{ending}"
    bad.to_csv(file, index=False)
    said = refused(DataError, file, positive=True)
    shown = cell if "inf" in cell else repr(cell)
    assert f"{file}: column amount: expected finite numbers, got {shown} in line {line};" in said
    assert "repair=missing" in said
    assert "repair=drop" in said


def test_a_bad_cell_after_an_empty_line(mine):
    lines = mine.read_text().splitlines()
    lines = [*lines[:5], "", *lines[5:150], "", "much,30,card,1,0", *lines[150:], "", ""]
    mine.write_text("\n".join(lines))
    assert f"'much' in line {lines.index('much,30,card,1,0') + 1};" in refused(DataError, mine)


def test_a_bad_cell_of_parquet_is_named_by_its_row(frame, tmp_path):
    frame.loc[(frame.index == 9), ["amount", "label"]] = np.inf, 0
    frame.to_parquet(tmp_path / "bad.parquet")
    assert "inf in line 10;" in refused(DataError, tmp_path / "bad.parquet").replace("row 10", "line 10")


def test_of_many_bad_cells_the_first_are_shown(frame, tmp_path):
    frame.assign(amount=[f"{a:.2f} EUR" for a in frame["amount"][:100]] + [*frame["amount"][100:]]).to_csv(
        tmp_path / "bad.csv", index=False
    )
    said = refused(DataError, tmp_path / "bad.csv")
    shown = re.findall(r"'[\d.]+ EUR' in line (\d+)", said)
    assert len(shown) == 3
    assert all(2 <= int(line) <= 101 for line in shown)
    assert int(re.search(r" and (\d+) more", said)[1]) > 30


def test_a_label_column_that_is_not_there(mine):
    assert (
        refused(ConfigError, mine, label="lable")
        == f"{mine}: dataset.label: column lable: unknown; did you mean label?"
    )
    assert "there are: age, amount, code, kind, label" in refused(ConfigError, mine, label="Fraud")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"positive": 7}, "got no anomalous one; column label has 0 (160), 1 (40), and positive is 7"),
        ({"positive": [0, 1]}, "got no normal one; column label has 0 (160), 1 (40), and positive is 0, 1"),
        (
            {"positive": None, "normal": "calm"},
            "got no normal one; column label has 0 (160), 1 (40), and normal is calm",
        ),
        ({"positive": None, "normal": [0, 1]}, "got no anomalous one;"),
    ],
)
def test_rows_of_one_class_alone(mine, knobs, said):
    message = refused(DataError, mine, **knobs)
    assert message.startswith(f"{mine}: expected rows of both classes, ")
    assert said in message


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"normal": 0}, "expected either normal or positive"),
        ({"positive": None}, "expected either normal or positive"),
        ({"drop": ["amuont"]}, "dataset.drop: column amuont: unknown; did you mean amount?"),
        ({"categorical": ["knd"]}, "dataset.categorical: knd: unknown; did you mean kind?"),
        ({"time": "when"}, "dataset.time: column when: unknown; there are: "),
        ({"test": 0}, "above 0 and below 1 to hold out, got 0"),
        ({"validation": 1.0}, "above 0 and below 1 to hold out, got 1.0"),
    ],
)
def test_settings_that_cannot_be(mine, knobs, said):
    assert said in refused(ConfigError, mine, **knobs)


def test_a_time_that_is_none(mine):
    assert f"{mine}: column kind: expected numbers or dates" in refused(DataError, mine, time="kind")


HEADER = "amount,kind,label\n"
BODY = "".join(f"{i}.5,{'ab'[i % 2]},{int(i % 5 == 0)}\n" for i in range(40))
PACKED = gzip.compress((HEADER + BODY).encode() * 50)
BROKEN = {
    "empty": ("a.csv", b"", "expected rows, got an empty file"),
    "blank": ("a.csv", b"\n\n", "expected rows, got an empty file"),
    "header alone": ("a.csv", HEADER.encode(), "expected rows, got a header alone"),
    "semicolons": ("a.csv", (HEADER + BODY).replace(",", ";").encode(), "it has ';' in it: try dataset.delimiter=';'"),
    "tabs": ("a.csv", (HEADER + BODY).replace(",", "\t").encode(), "try dataset.delimiter='\\t'"),
    "bars": ("a.csv", (HEADER + BODY).replace(",", "|").encode(), "try dataset.delimiter='|'"),
    "one column": ("a.csv", b"label\n1\n0\n", "expected columns between ',', got a single one"),
    "truncated gzip": ("a.csv.gz", PACKED[: len(PACKED) // 2], "cannot be read as a table: Compressed file ended"),
    "no gzip": ("a.csv.gz", (HEADER + BODY).encode(), "cannot be read as a table: Not a gzipped file"),
    "no parquet": ("a.parquet", (HEADER + BODY).encode(), "cannot be read as a table: "),
    "gzip without its name": ("a.csv", PACKED, "cannot be read as a table: "),
    "latin-1": ("a.csv", (HEADER + BODY + "1,\xe9,0\n").encode("latin-1"), "cannot be read as a table: 'utf-8' codec"),
    "a field too many": ("a.csv", (HEADER + BODY + "1,a,0,0\n").encode(), "Expected 3 fields in line 42, saw 4"),
    "a field too many everywhere": ("a.csv", (HEADER + BODY.replace("\n", ",9\n")).encode(), "fields"),
    "an open quote": ("a.csv", (HEADER + BODY + '1,"a,0\n').encode(), "cannot be read as a table: "),
    "no label": ("a.csv", (HEADER + BODY + "1,a,\n").encode(), "column label: expected a label in every row, "),
    "nothing in a column": (
        "a.csv",
        (HEADER + "".join(f",{line.partition(',')[2]}\n" for line in BODY.split())).encode(),
        "column amount has no value in training; leave it out: drop=[amount]",
    ),
    "too few": ("a.csv", (HEADER + "1,a,0\n2,b,0\n3,a,1\n").encode(), "at least two anomalies and two normal rows"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(case, tmp_path):
    name, content, said = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    message = refused(DataError, tmp_path / name)
    assert said in message
    if case != "too few":
        assert message.startswith(f"{tmp_path / name}: ")


def test_the_good_form_of_these_files_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + BODY)
    assert len(own(tmp_path / "a.csv").test) == 8


def test_a_file_that_is_not_there(mine, tmp_path):
    assert refused(DataError, tmp_path / "no.csv") == f"{tmp_path / 'no.csv'}: no such file"
    assert refused(DataError, tmp_path / "no.parquet") == f"{tmp_path / 'no.parquet'}: no such file"
    assert refused(DataError, mine, test_path=str(tmp_path / "no.csv")) == f"{tmp_path / 'no.csv'}: no such file"
    assert f"{tmp_path}: cannot be read" in refused(DataError, tmp_path)


def test_test_rows_without_a_column(mine, frame, tmp_path):
    frame.drop(columns="kind").to_csv(tmp_path / "held.csv", index=False)
    said = refused(DataError, mine, test_path=str(tmp_path / "held.csv"))
    assert said.startswith(f"{tmp_path / 'held.csv'}: expected a column 'kind', got amount, age, code, label")


def test_test_rows_of_one_class(mine, frame, tmp_path):
    frame.assign(label=0).to_csv(tmp_path / "held.csv", index=False)
    said = refused(DataError, mine, test_path=str(tmp_path / "held.csv"))
    assert said.startswith(f"{tmp_path / 'held.csv'}: expected rows of both classes, got no anomalous one")


# ---- repair, where it is asked for


@pytest.fixture
def bad(frame, tmp_path):
    """(file, row numbers of bad cells): ten normal rows and five anomalies with no number for an amount."""
    where = np.sort([*np.flatnonzero(frame["label"] == 0)[::16], *np.flatnonzero(frame["label"] == 1)[::8]])
    frame["age"] = np.arange(len(frame))  # tells which row it is
    bad = frame.astype(object)
    bad.loc[where, "amount"] = np.resize(["much", "inf", "?"], len(where))
    bad.to_csv(tmp_path / "bad.csv", index=False)
    return tmp_path / "bad.csv", where


def told(data, what):
    """part -> cells that were repaired, as the notes count them."""
    pattern = rf"(\w+), amount: ([\d,]+) cells that are no finite number, {what}"
    return {part: int(count) for part, count in re.findall(pattern, data.notes)}


def test_repair_missing_counts_bad_cells_as_empty(bad):
    file, where = bad
    data = own(file, repair="missing")
    counts = {part: int(np.isnan(getattr(data, part).x[:, 0]).sum()) for part in PARTS}
    assert told(data, "missing") == counts
    assert all(counts.values())
    for part in PARTS:
        split = getattr(data, part)
        np.testing.assert_array_equal(np.isnan(split.x[:, 0]), np.isin(split.x[:, 1], where))
    assert (len(data.train), len(data.validation), len(data.test)) == (102, 32, 40)
    assert f"{sum(counts.values())} missing values" in data.notes


def test_repair_drop_leaves_their_rows_out(bad, frame):
    file, where = bad
    filled, data = own(file, repair="missing"), own(file, repair="drop")
    assert told(data, "drop") == told(filled, "missing")
    for part in PARTS:
        split, before = getattr(data, part), getattr(filled, part)
        keep = ~np.isnan(before.x[:, 0])
        np.testing.assert_array_equal(split.x, before.x[keep])
        np.testing.assert_array_equal(split.y, before.y[keep])
        np.testing.assert_array_equal(split.y, frame["label"].to_numpy()[split.x[:, 1].astype(int)])
        assert np.isin(split.x[:, 1], where).sum() == 0


@pytest.mark.parametrize("repair", ["missing", "drop"])
def test_repair_says_nothing_where_nothing_was_repaired(mine, repair):
    assert "no finite number" not in own(mine, repair=repair).notes
    same(own(mine, repair=repair), own(mine))


# ---- in parts, as stored runs read what they score


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_in_parts_are_the_whole(frame, tmp_path, ending, size):
    file = tmp_path / f"mine.{ending}"
    frame.to_parquet(file) if ending == "parquet" else frame.to_csv(file, index=False)
    parts = list(read_frame(file, **FILE, chunk=size))
    assert [len(part) for part in parts] == [size] * (200 // size) + ([200 % size] if 200 % size else [])
    joined, whole = pd.concat(parts), read_frame(file, **FILE)
    assert list(joined.index) == list(whole.index)
    assert whole.index[0] == (1 if ending == "parquet" else 2)
    pd.testing.assert_frame_equal(joined, whole, check_dtype=False)


def test_a_file_that_breaks_off_later(tmp_path):
    body = "".join(f"{i},{i * 7919 % 1000003},{i % 2}\n" for i in range(100_000))
    packed = gzip.compress(("a,b,c\n" + body).encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) * 9 // 10])
    frames = read_frame(tmp_path / "cut.csv.gz", **FILE, chunk=1000)
    assert len(next(frames)) == 1000
    with pytest.raises(DataError, match=r"cut\.csv\.gz: cannot be read as a table: Compressed file ended"):
        list(frames)


@pytest.mark.parametrize("chunk", [None, 10])
def test_no_rows_are_told_in_parts_too(chunk, tmp_path):
    (tmp_path / "bare.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="got a header alone"):
        list(read_frame(tmp_path / "bare.csv", **FILE, chunk=chunk))


# ---- the real thing


@pytest.mark.data
def test_real_creditcard(real_data):
    frame = pd.read_csv(real_data / "creditcard" / "creditcard.csv.gz")
    data = table("creditcard", real_data)
    as_published(frame, data)
    assert list(data.columns.names) == ["Time", *(f"V{i}" for i in range(1, 29)), "Amount"]
    assert np.sum(data.test.y) == round(492 * 0.2)
    assert data.columns.categories == {}


@pytest.mark.data
def test_real_nsl_kdd(real_data):
    data = table("nsl_kdd", real_data)
    assert len(data.test) == 22_544
    assert np.sum(data.test.y == 0) == 9_711
    assert len(data.train) + np.sum(data.validation.y == 0) == 13_449
    assert len(data.validation) == -(-25_192 // 5)
    other = data.label_names.index("other")
    assert all(other not in getattr(data, part).y for part in PARTS)
    assert set(data.test.y) == set(range(other))
    # Tavallaee et al.: 7,458 DoS, 2,421 probe, 2,754 R2L (2,887 with warezmaster's kin), 200 U2R
    assert np.bincount(data.test.y)[1:].sum() == 12_833
    files = [real_data / "nsl-kdd" / f for f in ("KDDTrain+_20Percent.txt", "KDDTest+.txt")]
    seen, held = ({line.split(",")[41] for line in f.read_text().splitlines()} - {"normal"} for f in files)
    known = {attack for family in nsl.FAMILIES.values() for attack in family.split()}
    assert seen | held <= known
    assert len(data.columns.categories["protocol_type"]) == 3


@pytest.mark.data
def test_real_arrhythmia(real_data):
    data = table("arrhythmia", real_data)
    assert len(data.test) == 136  # 30 % of 452
    assert len(data.validation) == 64
    raw = [line.split(",") for line in (real_data / "arrhythmia" / "arrhythmia.data").read_text().splitlines()]
    assert len(raw) == 452
    calm = sum(line[-1].strip() == "1" for line in raw)
    assert calm == 245
    assert len(data.train) == calm - np.sum(data.validation.y == 0) - np.sum(data.test.y == 0)
    assert data.columns.names == [f"f{i}" for i in range(1, 280) if i != 14]
    assert np.isnan(data.train.x).any()
