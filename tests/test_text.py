"""Texts: tokens and back by hand and by property, cuts by position, the vocabulary, and files that are not as hoped."""

import doctest
import hashlib
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contract import component
from hypothesis import given
from hypothesis import strategies as st

from aelab import compose, declared
from aelab.config import ConfigError, DataError, DataUnavailable
from aelab.data import text as texts
from aelab.inference import tokens
from aelab.inference.tokens import NAMES, UNKNOWN, encode, pieces, spaced, vocabulary

PARTS = ("train", "validation", "test")
UNITS = ("char", "word")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("ab'’\"‘”«(). \n\t\r_1", max_size=60)


@pytest.fixture(autouse=True)
def no_network_no_home(monkeypatch, tmp_path):
    """Downloads go to an empty cache, and nothing leaves the machine by way of a proxy."""
    monkeypatch.setenv("AELAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")


def of(tmp_path, content, **knobs):
    """The data of a text file with this content, text or bytes."""
    file = tmp_path / "mine.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return component("dataset", "text", path=str(file), **knobs)()


def written(data, part="train"):
    """The tokens of a part."""
    return [data.label_names[i] for i in getattr(data, part).x]


def one_line(error, call, *args, **knobs):
    """The message of the error that a call leads to: one line."""
    with pytest.raises(error) as caught:
        call(*args, **knobs)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- tokens


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(tokens) == (0, 2)


@pytest.mark.parametrize(
    ("text", "words", "sizes"),
    [
        ("No, I'm not.", ["No", ",", "I'm", "not", "."], [2, 1, 4, 4, 1]),
        ("a  b", ["a", "b"], [1, 3]),
        (" x\n\n y ", ["x", "\n", "\n", "y"], [2, 1, 1, 2]),  # the last space is no token's
        ("a \t\nb", ["a", "\n", "b"], [1, 3, 1]),  # what stands before the end of a line is the line end's
        ("don’t 'tis it'", ["don’t", "'", "tis", "it", "'"], [5, 2, 3, 3, 1]),
        ("x_1 3.5", ["x_1", "3", ".", "5"], [3, 2, 1, 1]),
        ("Çağ--日本!", ["Çağ", "-", "-", "日本", "!"], [3, 1, 1, 2, 1]),
        ("<unk>", ["<", "unk", ">"], [1, 3, 1]),
        (" \t ", [], []),
        ("", [], []),
    ],
)
def test_words_by_hand(text, words, sizes):
    found, counts = pieces(text, "word")
    assert (found, counts.tolist()) == (words, sizes)
    assert counts.dtype.kind == "i"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("No , I'm not .", "No, I'm not."),
        ("( a ) [ b ] { c }", "(a) [b] {c}"),
        ("“ So ” said « he »", "“So” said «he»"),
        ("A : B ; C ! D ?", "A: B; C! D?"),
    ],
)
def test_spaces_by_hand(words, text):
    assert "".join(spaced(words.split(), "word")) == text


def test_no_space_stands_at_either_side_of_a_line_end():
    assert "".join(spaced(["a", "\n", "b", "c"], "word")) == "a\nb c"
    assert "".join(spaced(["b", "c"], "word", before="\n")) == "b c"
    assert "".join(spaced(["b", "c"], "word", before="a")) == " b c"
    assert "".join(spaced([".", "c"], "word", before="a")) == ". c"
    assert "".join(spaced(["b", "c"], "char", before="a")) == "bc"


@given(TEXTS)
def test_characters_give_any_text_back(text):
    found, counts = pieces(text, "char")
    assert counts.tolist() == [1] * len(text)
    assert "".join(spaced(found, "char")) == text
    known = vocabulary(found, "char", None)
    back = "".join(known[i] for i in encode(found, known))
    assert back == text  # U+FFFD is the unknown token, and is written as itself


@given(TEXTS)
def test_words_that_are_joined_are_the_same_words_again(text):
    found, counts = pieces(text, "word")
    assert pieces("".join(spaced(found, "word")), "word")[0] == found
    assert len(counts) == len(found)
    assert all(size >= len(word) for size, word in zip(counts, found, strict=True))
    rest = text[counts.sum() :]
    assert not rest.strip()
    assert "\n" not in rest
    assert "".join(found).replace("\n", "") == "".join(text.split())  # nothing but spaces is left out


def test_a_vocabulary_by_hand():
    assert vocabulary("abracadabra", "char", None) == ("\ufffd", "a", "b", "r", "c", "d")  # 5, 2, 2, 1, 1
    assert vocabulary("abracadabra", "char", 4) == ("\ufffd", "a", "b", "r")
    assert vocabulary(["b", "a", "B", "b"], "word", 3) == ("<unk>", "b", "B")  # of equals the first in the alphabet
    assert vocabulary([], "word", 9) == ("<unk>",)
    assert vocabulary("a\ufffdb\ufffd", "char", None) == ("\ufffd", "a", "b")  # the text's own is the unknown one


@given(words=st.lists(st.sampled_from("abcdefg"), max_size=40), size=st.none() | st.integers(2, 9))
def test_a_vocabulary_has_the_most_frequent_tokens(words, size):
    known = vocabulary(words, "word", size)
    assert known[UNKNOWN] == NAMES["word"]
    assert len(known) == min(size or 99, 1 + len(set(words)))
    counts = [words.count(token) for token in known[1:]]
    assert counts == sorted(map(words.count, set(words)), reverse=True)[: len(counts)]
    assert list(known[1:]) == sorted(known[1:], key=lambda word: (-words.count(word), word))


@given(words=st.lists(st.sampled_from("abcdefg"), max_size=40), size=st.integers(2, 5))
def test_what_the_vocabulary_lacks_is_encoded_as_unknown(words, size):
    known = vocabulary(words, "word", size)
    ids = encode(words, known)
    assert ids.dtype == np.int32
    assert ids.shape == (len(words),)
    assert [known[i] for i in ids] == [word if word in known else NAMES["word"] for word in words]


# ---- a file


def test_a_text_is_cut_by_position(tmp_path):
    """40 characters: the last 10 are test; of the 30 before, the last 6 are validation."""
    content = "".join(chr(ord("A") + i) for i in range(40))
    data = of(tmp_path, content, test=0.25, validation=0.2)
    assert [len(getattr(data, part)) for part in PARTS] == [24, 6, 10]
    assert "".join(written(data)) == content[:24]
    assert data.label_names == ("\ufffd", *content[:24])
    assert data.test.x.tolist() == [UNKNOWN] * 10  # none of them stands in training
    assert data.notes == "characters, a vocabulary of 25; 100.00% of the test is unknown to it"
    assert (data.name, data.kind, data.shape, data.licence) == ("mine", "text", (), "yours")
    assert data.source == str(tmp_path / "mine.txt")
    for split in (data.train, data.validation, data.test):
        assert (split.x.dtype, split.y.dtype.kind) == (np.int32, "i")


def test_the_vocabulary_is_that_of_the_training_part_alone(tmp_path):
    """b stands seven times in validation and test, but once in training: it comes after c, and z is unknown."""
    data = of(tmp_path, "aaaccb" + "bb" + "bbzb", test=4 / 12, validation=2 / 8, vocabulary=3)
    assert data.label_names == ("\ufffd", "a", "c")
    assert "".join(written(data)) == "aaacc\ufffd"
    data = of(tmp_path, "aaaccb" + "bb" + "bbzb", test=4 / 12, validation=2 / 8, vocabulary=None)
    assert data.label_names == ("\ufffd", "a", "c", "b")
    assert "".join(written(data, "test")) == "bb\ufffdb"
    assert data.notes.endswith("25.00% of the test is unknown to it")


def test_words_are_cut_between_words(tmp_path):
    data = of(tmp_path, "The cat, the dog.\nThe end !", unit="word", test=0.25, validation=0.25)
    assert written(data) == ["The", "cat", ",", "the", "dog", "."]  # of 10: the last 2 are test, 2 before validation
    assert written(data, "validation") == ["<unk>", "The"]  # the end of a line stands nowhere in training
    assert data.test.y.tolist() == [4, 2]  # " end", " !"
    assert data.notes.startswith("words and marks, a vocabulary of 7;")


def test_limit_bounds_every_split_and_leaves_vocabulary_and_cuts(tmp_path):
    content = "the quick brown fox jumps over the lazy dog " * 9
    whole, few = of(tmp_path, content), of(tmp_path, content, limit=7)
    assert few.label_names == whole.label_names
    for part in PARTS:
        np.testing.assert_array_equal(getattr(few, part).x, getattr(whole, part).x[:7])
        np.testing.assert_array_equal(getattr(few, part).y, getattr(whole, part).y[:7])


@pytest.mark.parametrize("unit", UNITS)
@given(text=TEXTS)
def test_sizes_add_up_to_the_text(unit, text):
    """All characters are counted once, but for spaces at the very end that no word follows."""
    content = "ab cd\nef gh ij kl mn " + text
    knobs = {"vocabulary": None, "test": 0.25, "validation": 0.25, "limit": None, "source": "", "licence": ""}
    parts = [getattr(texts.assemble("t", content, unit, **knobs), part) for part in PARTS]
    total = sum(split.y.sum() for split in parts)
    left = content[total:]
    assert not left.strip()
    assert unit == "word" or not left
    assert all(split.x.shape == split.y.shape for split in parts)


def test_the_fingerprint_is_of_the_text_whatever_is_made_of_it(tmp_path):
    content = "the quick brown fox jumps over the lazy dog " * 9
    marks = {
        of(tmp_path, content, **knobs).fingerprint
        for knobs in ({}, {"unit": "word"}, {"limit": 5}, {"vocabulary": 3}, {"test": 0.3, "validation": 0.2})
    }
    assert len(marks) == 1
    raw = content.encode()  # by hand: sha256sum of the bytes "|u1(396,);" and the text
    assert marks == {hashlib.sha256(f"|u1({len(raw)},);".encode() + raw).hexdigest()}
    assert of(tmp_path, content + ".").fingerprint not in marks


def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path):
    content = "Çay içer misin?\nİyi olur.\n" * 3
    plain = of(tmp_path, content)
    for raw in (
        b"\xef\xbb\xbf" + content.encode(),
        content.replace("\n", "\r\n").encode(),
        content.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode(),
    ):
        data = of(tmp_path, raw)
        assert data.fingerprint == plain.fingerprint
        assert data.label_names == plain.label_names
        np.testing.assert_array_equal(data.train.x, plain.train.x)
    assert "\r" not in plain.label_names
    assert "\ufeff" not in plain.label_names


@pytest.mark.parametrize(
    ("raw", "byte", "offset"),
    [
        ("İyi".encode() + b"\xe7ay", "0xe7", "4"),  # I with a dot takes two bytes
        (b"\xef\xbb\xbfab\xff", "0xff", "5"),  # the mark's three bytes count
        (b"a" * 12_345 + b"\xe9", "0xe9", "12,345"),
        ("abc".encode("utf-16"), "0xff", "0"),
        (b"ab\xed\xa0\x80", "0xed", "2"),  # half of a pair
    ],
)
def test_a_file_that_is_not_utf_8_is_refused_with_the_place(tmp_path, raw, byte, offset):
    said = one_line(DataError, of, tmp_path, raw)
    assert said.startswith(
        f"{tmp_path / 'mine.txt'}: expected a text in UTF-8, got the byte {byte} at offset {offset} ("
    )
    assert "iconv -f latin1 -t utf-8" in said


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, why in ((tmp_path / "no.txt", "No such file or directory"), (tmp_path, "Is a directory")):
        said = one_line(DataError, component("dataset", "text", path=str(path)))
        assert said == f"{path}: cannot be read: {why}"


@pytest.mark.parametrize(
    ("content", "unit", "got"),
    [
        ("", "char", "2 characters in each part, got 0 in all, too few for train"),
        ("\ufeff", "char", "2 characters in each part, got 0 in all, too few for train"),
        ("abcdefghi", "char", "2 characters in each part, got 9 in all, too few for validation"),
        ("a b c d", "word", "2 words in each part, got 4 in all, too few for validation"),
    ],
)
def test_a_text_that_is_too_short_is_refused(tmp_path, content, unit, got):
    said = one_line(DataError, of, tmp_path, content, unit=unit)
    assert said == f"{tmp_path / 'mine.txt'}: expected a text with at least {got}"


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"test": 0}, "dataset.test=0 dataset.validation=0.05: expected shares of the text below 1, and some"),
        ({"test": 1}, "dataset.test=1 dataset.validation=0.05: expected shares of the text below 1, and some"),
        ({"validation": 1}, "dataset.test=0.1 dataset.validation=1: expected shares of the text below 1, and some"),
        ({"vocabulary": 1}, "dataset.vocabulary=1: expected at least 2"),
    ],
)
def test_knobs_that_leave_nothing_are_refused(tmp_path, knobs, said):
    assert one_line(ConfigError, of, tmp_path, "a text " * 30, **knobs).startswith(said)


def test_without_validation_all_but_the_test_is_training(tmp_path):
    data = of(tmp_path, "abcdefgh" * 5, test=0.25, validation=0)
    assert [len(getattr(data, part)) for part in PARTS] == [30, 0, 10]
    assert data.validation.x.dtype == np.int32


# ---- Tiny Shakespeare


@pytest.mark.data
@pytest.mark.parametrize("unit", UNITS)
def test_shakespeare_has_its_published_size(unit, real_data):
    data = component("dataset", "shakespeare", data_dir=str(real_data), mirrors=[], unit=unit)()
    sizes = [len(getattr(data, part)) for part in PARTS]
    total = sum(getattr(data, part).y.sum() for part in PARTS)
    assert total == 1_115_394
    assert data.name == "shakespeare"
    if unit == "char":
        assert sizes == [953_662, 50_193, 111_539]
        assert len(data.label_names) == 66  # 65 characters, and the unknown one
        assert "".join(written(data)[:14]) == "First Citizen:"
        assert data.test.x.min() > UNKNOWN
    else:
        assert len(data.label_names) == 10_000
        assert written(data)[:4] == ["First", "Citizen", ":", "\n"]
        assert 0.02 < (data.test.x == UNKNOWN).mean() < 0.1


def test_an_altered_shakespeare_is_named(tmp_path):
    file = tmp_path / "text" / "tinyshakespeare.txt"
    file.parent.mkdir()
    file.write_text("First Citizen:\nBefore we proceed any further, hear me sing.\n")
    said = one_line(DataError, component("dataset", "shakespeare", data_dir=str(tmp_path), mirrors=[]))
    found = hashlib.md5(file.read_bytes()).hexdigest()
    assert said.startswith(f"{file}: expected Tiny Shakespeare, MD5 {texts.SHAKESPEARE_MD5}, got {found}; ")
    assert said.endswith("dataset=text path=FILE")


def test_shakespeare_that_is_nowhere_is_said_to_be():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/input.txt"
        said = one_line(DataUnavailable, component("dataset", "shakespeare", data_dir=None, mirrors=[url]))
    assert said.startswith("text/tinyshakespeare.txt is not in ")
    assert "put the files of text into $AELAB_DATA_DIR/text/" in said


# ---- Python's reference


def test_the_python_reference_needs_no_network_and_no_framework():
    code = (
        "import sys\nfrom aelab.data.text import python_reference\n"
        "knobs = dict(vocabulary=10000, test=0.1, validation=0.05, limit=None)\n"
        "for unit in ('char', 'word'):\n"
        "    data = python_reference(unit=unit, **knobs)\n"
        "    print(sum(len(s) for s in (data.train, data.validation, data.test)), data.fingerprint)\n"
        "print(*sys.modules.keys() & {'tensorflow', 'keras', 'mlflow', 'sklearn', 'scipy', 'pooch', 'socket'})"
    )
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    chars, words, heavy = out.stdout.split("\n")[:3]
    assert heavy == ""
    assert chars.split()[1] == words.split()[1]
    assert 300_000 < int(chars.split()[0]) < 900_000  # each Python has its own
    assert 80_000 < int(words.split()[0]) < 250_000


def test_the_python_reference_holds_its_topics_in_order():
    from pydoc_data.topics import topics

    data = component("dataset", "python_reference", vocabulary=None)()
    first = topics[min(topics)]
    assert "".join(written(data)[: len(first)]) == first
    assert (data.name, data.licence) == ("python_reference", "PSF")


@pytest.mark.parametrize("name", ["text", "shakespeare", "python_reference"])
def test_their_kind_is_read_from_their_source(name):
    node = re.search(r"_target_: (\S+)", (compose.CONF / "dataset" / f"{name}.yaml").read_text())
    assert declared.kinds("dataset", node[1]) == ("text",)
