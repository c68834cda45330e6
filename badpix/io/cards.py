"""FITS headers as lists of cards: single values changed, lines of HISTORY added, without astropy's header objects.

Importing astropy takes longer than some searches. What a copy of an exposure changes in its headers is little, and
done here with the bytes that ``astropy.io.fits.Header`` would give:

1. a value is replaced on its card, its comment kept; equal values leave the card as it is;
2. a new card goes behind the last one that is no comment; HISTORY behind the last HISTORY, else to the end;
3. blank cards at the end are used up by new ones.

Only plain cards are dealt with: anything else raises :class:`badpix.io.headers.Odd`, and astropy does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from badpix.io.headers import COMMENTS, Odd
from badpix.io.structure import BLOCK, CARD

_PRINTABLE = re.compile(r"[ -~]*")
_TEXT = re.compile(r"= *'(?P<value>[^']*)' *(?:/ *(?P<comment>.*?) *)?")
_NUMBER = re.compile(r"= +(?P<value>[+-]?[0-9]+) *(?:/ *(?P<comment>.*?) *)?")
_LINE = 72  # characters of a line of HISTORY


def split_cards(content: bytes) -> list[str]:
    """The cards of a header (without END).

    Raises
    ------
    Odd
        If they hold anything but printable ASCII.
    """
    text = content.decode("ascii", "replace")
    if not _PRINTABLE.fullmatch(text):
        raise Odd("no printable text")
    return [text[start : start + CARD].ljust(CARD) for start in range(0, len(text), CARD)]


def join_cards(cards: Iterable[str]) -> bytes:
    """The bytes of a header: its cards, END, blanks to the end of a block."""
    text = "".join(cards) + "END".ljust(CARD)
    return (text + " " * (-len(text) % BLOCK)).encode("ascii")


def keyword_of(card: str) -> str:
    """The keyword of a card."""
    return card[:8].rstrip()


def find_card(cards: list[str], keyword: str) -> int | None:
    """The place of the first card of a keyword; None where there is none."""
    return next((i for i, card in enumerate(cards) if keyword_of(card) == keyword), None)


def make_card(keyword: str, value: str | int, comment: str = "") -> str:
    """One card. A comment that doesn't fit is dropped, or cut where it would without the blanks behind the value.

    Raises
    ------
    Odd
        If the value does not fit on a card, or holds quotes.
    """
    if isinstance(value, int):
        start = f"{keyword:8}= {value:>20d}"
    else:
        if "'" in value or not _PRINTABLE.fullmatch(value):
            raise Odd(f"text {value!r}")
        quoted = f"'{value:8}'" if value else "''"
        start = f"{keyword:8}= {quoted:20}"
    if len(start.rstrip()) > CARD:
        raise Odd(f"text {value!r}")
    fits = comment and len(start.rstrip()) + 3 + len(comment) <= CARD
    return (f"{start} / {comment}" if fits else start)[:CARD].ljust(CARD)


def set_card(cards: list[str], keyword: str, value: str | int) -> None:
    """Change a value; its comment is kept where it fits.

    Raises
    ------
    Odd
        If the card holds anything but a plain value of this kind.
    """
    at = find_card(cards, keyword)
    found = (_NUMBER if isinstance(value, int) else _TEXT).fullmatch(cards[at], 8) if at is not None else None
    if at is None or found is None or keyword_of((cards[at + 1 :] or [""])[0]) == "CONTINUE":
        raise Odd(f"card {keyword}")
    old = found["value"]
    if (int(old) if isinstance(value, int) else old.rstrip()) != value:
        cards[at] = make_card(keyword, value, found["comment"] or "")


def insert_card(cards: list[str], card: str, after: int | None = None) -> None:
    """Add a card behind another one, or behind the last that is no comment."""
    if after is None:
        after = len(cards) - 1
        while after >= 0 and keyword_of(cards[after]) in COMMENTS:
            after -= 1
    _insert(cards, [card], after + 1)


def add_history(cards: list[str], line: str) -> None:
    """Add a line of HISTORY behind the last one; a long one takes several cards.

    Raises
    ------
    Odd
        If it holds anything but printable ASCII.
    """
    if not _PRINTABLE.fullmatch(line):
        raise Odd(f"history {line!r}")
    places = [i for i, card in enumerate(cards) if keyword_of(card) == "HISTORY"]
    end = len(cards)
    while end > 0 and not cards[end - 1].strip():
        end -= 1
    parts = [line[i : i + _LINE] for i in range(0, len(line), _LINE)] or [""]
    _insert(cards, [f"HISTORY {part}".ljust(CARD) for part in parts], places[-1] + 1 if places else end)


def remove_cards(cards: list[str], keywords: Iterable[str]) -> None:
    """Remove the first card of each keyword, where there is one."""
    for keyword in keywords:
        at = find_card(cards, keyword)
        if at is not None:
            del cards[at]


def _insert(cards: list[str], new: list[str], at: int) -> None:
    """Cards at a place; as many blank ones at the end go, unless the new ones stand there."""
    last = at >= len(cards)
    cards[at:at] = new
    for _ in new:
        if not last and not cards[-1].strip():
            cards.pop()
