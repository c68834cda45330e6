"""Hostile input: how a sound file is spoiled, from a seed. Headers, bytes, structure, texts, kinds of files."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CARD, BLOCK = 80, 2880

NUMBERS = ["0", "-1", "7", "1.5", "1E3", "9" * 19, "99999", "1_0", "T", "'x'", "''", "NaN", "inf", "-2147483649"]
WORDS = [
    "",
    "0",
    "-1",
    "null",
    "[]",
    "{}",
    "~",
    "true",
    "1e999",
    "x" * 300,
    "é",
    "\x1b[31m",
    "\x00",
    "[bold]",
    "&a",
    "*a",
]

VALUES: list[Any] = [
    None,
    0,
    -1,
    1.5,
    True,
    "",
    "x",
    "../x",
    "/etc",
    "\x1b[31m",
    "\x00",
    "é" * 300,
    [],
    {},
    [[]],
    {"a": 1},
]
VALUES += [10**30, float("nan")]


def spoil_card(data: bytearray, dice: random.Random) -> bytearray:
    """Another value on a card of any header."""
    cards = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if cards:
        at = dice.choice(cards)
        data[at + 10 : at + 30] = dice.choice(NUMBERS).encode()[:20].rjust(20)
    return data


def drop_card(data: bytearray, dice: random.Random) -> bytearray:
    """A card that becomes a comment."""
    cards = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if cards:
        at = dice.choice(cards)
        data[at : at + CARD] = b"COMMENT gone".ljust(CARD)
    return data


def double_card(data: bytearray, dice: random.Random) -> bytearray:
    """A card that stands where another stood, too."""
    cards = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if len(cards) > 1:
        one, other = dice.sample(cards, 2)
        data[one : one + CARD] = data[other : other + CARD]
    return data


def spoil_text_of_card(data: bytearray, dice: random.Random) -> bytearray:
    """A byte of a header that is no printable character."""
    at = dice.randrange(min(len(data), 2 * BLOCK))
    data[at] = dice.choice([0, 9, 10, 27, 127, 200, 255])
    return data


def flip_bits(data: bytearray, dice: random.Random) -> bytearray:
    """Some bits anywhere."""
    for _ in range(dice.choice([1, 3, 30])):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def cut_short(data: bytearray, dice: random.Random) -> bytearray:
    """The end is missing."""
    return data[: dice.choice([0, 1, 79, BLOCK, BLOCK + 1, dice.randrange(len(data))])]


def repeat_block(data: bytearray, dice: random.Random) -> bytearray:
    """A block stands twice, so that all behind it moves."""
    at = dice.randrange(0, len(data), BLOCK)
    return data[: at + BLOCK] + data[at:]


def drop_block(data: bytearray, dice: random.Random) -> bytearray:
    """A block is missing."""
    at = dice.randrange(0, len(data), BLOCK)
    return data[:at] + data[at + BLOCK :]


def append_noise(data: bytearray, dice: random.Random) -> bytearray:
    """Something follows the end."""
    return data + dice.randbytes(dice.choice([1, 80, BLOCK]))


def fill_pixels(data: bytearray, dice: random.Random) -> bytearray:
    """A stretch of the data is NaN, infinite, huge or zero."""
    at = dice.randrange(len(data)) // 4 * 4
    value = dice.choice(
        [b"\x7f\xc0\0\0", b"\x7f\x80\0\0", b"\xff\x80\0\0", b"\x7e\xff\xff\xff", b"\0\0\0\0", b"\xff" * 4]
    )
    length = min(dice.choice([4, 400, 40_000]), len(data) - at) // 4
    data[at : at + 4 * length] = value * length
    return data


def pack(data: bytearray, dice: random.Random) -> bytearray:
    """A gzipped file under the plain name, perhaps damaged."""
    packed = bytearray(gzip.compress(bytes(data), 1))
    return packed if dice.random() < 0.5 else flip_bits(packed, dice)


def swap_word(data: bytearray, dice: random.Random) -> bytearray:
    """A word of a text that is another one."""
    words = bytes(data).split(b" ")
    words[dice.randrange(len(words))] = dice.choice(WORDS).encode()
    return bytearray(b" ".join(words))


def swap_line(data: bytearray, dice: random.Random) -> bytearray:
    """A line of a text that stands twice, or is missing."""
    lines = bytes(data).split(b"\n")
    k = dice.randrange(len(lines))
    lines[k : k + 1] = [lines[k]] * dice.choice([0, 2])
    return bytearray(b"\n".join(lines))


def nest(data: bytearray, dice: random.Random) -> bytearray:
    """A text that is nested deeply."""
    depth = dice.choice([20, 2000])
    return bytearray(b"flats: " + b"[" * depth + b"]" * depth)


def mark(data: bytearray, dice: random.Random) -> bytearray:
    """A byte-order mark in front."""
    return bytearray(b"\xef\xbb\xbf") + data


def swap_value(data: bytearray, dice: random.Random) -> bytearray:
    """A value of a JSON tree that is of another kind."""
    try:
        tree = json.loads(data)
    except ValueError:
        return swap_word(data, dice)
    places = list(_places(tree))
    if places:
        holder, key = dice.choice(places)
        holder[key] = dice.choice(VALUES)
    return bytearray(json.dumps(tree).encode())


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a tree that hold a value: the list or mapping, and the index."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def spoil_tree(data: bytearray, dice: random.Random) -> bytearray:
    """A value of the ASDF tree inside a FITS file, or of any YAML, by one of the same length."""
    found = list(re.finditer(rb"(?<=[a-z_]: )[^\n]+(?=\n)", data))
    if not found:
        return spoil_card(data, dice)
    start, end = dice.choice(found).span()
    data[start:end] = dice.choice([*NUMBERS, *WORDS]).encode()[: end - start].ljust(end - start)
    return data


def inside_gzip(data: bytearray, dice: random.Random) -> bytearray:
    """A gzipped file whose content is spoiled, or which is damaged itself."""
    try:
        content = bytearray(gzip.decompress(bytes(data)))
    except (OSError, EOFError, zlib.error):
        return flip_bits(data, dice)
    return bytearray(gzip.compress(bytes(dice.choice(OF_FITS)(content, dice)), 1))


Mutation = Callable[[bytearray, random.Random], bytearray]
OF_FITS: list[Mutation] = [
    spoil_card,
    spoil_card,
    spoil_card,
    drop_card,
    double_card,
    spoil_text_of_card,
    flip_bits,
    cut_short,
    repeat_block,
    drop_block,
    append_noise,
    fill_pixels,
    fill_pixels,
    pack,
    spoil_tree,
]
OF_TEXT: list[Mutation] = [
    swap_word,
    swap_word,
    swap_line,
    flip_bits,
    cut_short,
    append_noise,
    nest,
    mark,
    spoil_tree,
]
OF_JSON: list[Mutation] = [swap_value, swap_value, swap_value, swap_value, *OF_TEXT]
OF_GZIP: list[Mutation] = [inside_gzip, inside_gzip, inside_gzip, flip_bits, cut_short, append_noise]
BY_ENDING = {".fits": OF_FITS, ".fz": OF_FITS, ".json": OF_JSON, ".gz": OF_GZIP}


def spoil(path: Path, dice: random.Random) -> str:
    """Spoil one file in place; says how."""
    if dice.random() < 0.05:
        return replace_kind(path, dice)
    data = bytearray(path.read_bytes())
    if not data:
        return "empty already"
    mutation = dice.choice(BY_ENDING.get(path.suffix, OF_TEXT))
    path.write_bytes(mutation(data, dice))
    return mutation.__name__


def replace_kind(path: Path, dice: random.Random) -> str:
    """Something that is no file, with a fitting name."""
    path.unlink()
    kind = dice.choice(["pipe", "folder", "loop", "nothing"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    return kind
