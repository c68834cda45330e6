"""What comes from outside: kinds of files, texts, parsers, and what messages quote."""

import os

import pytest

from badpix.errors import DataError, UsageError
from badpix.outside import (
    NODE_LIMIT,
    check_tree,
    find_fault,
    first_line,
    printable,
    quote,
    read_text,
    understood,
    whole_number,
)

KINDS = {
    "pipe": (os.mkfifo, "is a pipe; expected a regular file"),
    "folder": (os.mkdir, "is a directory; expected a regular file"),
    "loop": (lambda path: os.symlink(path, path), "can't be read"),
    "device": (lambda path: os.symlink("/dev/zero", path), "is a device; expected a regular file"),
    "nothing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_files_are_named(tmp_path, kind):
    make, words = KINDS[kind]
    path = tmp_path / "x"
    make(path)
    assert words in str(find_fault(path))
    with pytest.raises(UsageError, match="x: list can't be read: "):
        read_text(path, "list", UsageError)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"SIMPLE  =  T" * 1000, "no text"),
        (bytes(1_000_000), "no text"),
        (b"\x1f\x8b" + b"x" * 100, "no text"),
        (b"abc\xff\xfe", "byte 3 is no UTF-8"),
        (b"x" * 3_000_000, "larger than 2 MB"),
    ],
)
def test_what_is_no_text_is_told_shortly(tmp_path, content, words):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_text(tmp_path / "x", "list", limit=2 << 20)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf10 20 HOT\n")
    assert read_text(tmp_path / "x", "list") == "10 20 HOT\n"


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), KeyError("x"), RecursionError(), OSError(5, "x"), AssertionError()]
)
def test_whatever_a_parser_raises_names_the_file(error):
    with pytest.raises(DataError, match=r"^f\.json: not readable as JSON: ") as caught, understood("f.json", "JSON"):
        raise error
    assert "\n" not in str(caught.value)


def test_errors_of_ours_and_want_of_memory_pass():
    for error in (UsageError("x"), MemoryError()):
        with pytest.raises(type(error)), understood("f", "JSON"):
            raise error


@pytest.mark.slow
def test_trees_that_hold_themselves_or_expand_are_refused():
    loop: list = []
    loop.append(loop)
    bomb: list = ["x"]
    for _ in range(30):
        bomb = [bomb] * 9
    deep: list = []
    for _ in range(100):
        deep = [deep]
    for tree in (loop, bomb, deep, [0] * (NODE_LIMIT + 1)):
        with pytest.raises(DataError, match=r"p\.yml: more than"):
            check_tree(tree, "p.yml")
    check_tree({"flats": {"inputs": {"rate": ["a"] * 1000}}, "x": None}, "p.yml")


@pytest.mark.parametrize("text", ["", " 1", "1_0", "1.0", "0x1", "+", "\u0663", "\uff11"])
def test_numbers_are_ascii_digits(text):
    with pytest.raises(ValueError, match="expected a whole number"):
        whole_number(text)
    assert whole_number("-12") == -12


def test_a_number_of_too_many_digits_is_called_that():
    assert whole_number("-" + "9" * 18) == -(10**18) + 1
    with pytest.raises(ValueError, match=r"found '9{19}', expected at most 18 digits"):
        whole_number("9" * 19)


def test_quotes_are_short_and_printable():
    assert quote("a\x1b[31mb") == r"'a\x1b[31mb'"
    assert len(quote("x" * 10_000_000)) < 70
    assert len(quote(b"\0" * 10_000_000)) < 300
    assert quote(True) == "True"
    assert printable("a\nb\x07") == r"a\nb\x07"
    assert len(first_line(ValueError("x" * 100_000))) < 310
