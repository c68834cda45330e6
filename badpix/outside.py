"""What comes from outside, at one place: files are opened, texts read and quoted, parsers of others called here.

1. Only regular files (or links to them) are opened: a pipe, a socket or a device would block for ever, a folder fails
   late and without its name.
2. Texts are read up to a size, as UTF-8 with or without a byte-order mark.
3. Parsers of outside text and bytes (YAML, JSON, ASDF, FITS, gzip) raise nearly anything on damaged input. They are
   called inside :func:`understood`, which turns all of it into one message with the name of the file. An error of our
   own elsewhere keeps its traceback.
4. What a message quotes of a file is short and printable (:func:`quote`, :func:`printable`), what a header takes of
   its name is ASCII (:func:`header_text`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from badpix.errors import BadpixError, DataError

if TYPE_CHECKING:
    from pathlib import Path

QUOTED = 60  # characters of outside text in a message
MESSAGE = 300  # characters of another library's message
TEXT_LIMIT = 64 << 20  # bytes of a text; a list of ten million pixels is longer
MOST_DIGITS = 18  # of a whole number: more may be beyond 64 bits
DEPTH_LIMIT, NODE_LIMIT = 64, 1_000_000  # of a tree of settings or members

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


# --- 1. files --------------------------------------------------------------------------------------------


def describe_kind(mode: int) -> str | None:
    """What a file is, from its ``st_mode``; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def find_fault(path: str | Path) -> str | None:
    """Why a path can't be read as a file (``no such file``, ``is a pipe ...``); None where it can be tried."""
    try:
        kind = describe_kind(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        return f"can't be read: {getattr(error, 'strerror', None) or error}"
    return f"is {kind}; expected a regular file" if kind else None


def require_regular(path: str | Path, error: type[BadpixError] = DataError) -> None:
    """Make sure that a path is a regular file, or a link to one.

    Raises
    ------
    DataError
        (or ``error``) If it is missing, a directory, a pipe, a socket or a device.
    """
    fault = find_fault(path)
    if fault:
        raise error(f"{printable(path)}: {fault}")


def open_regular(path: str | Path, error: type[BadpixError] = DataError) -> int:
    """A file descriptor for reading; opening never blocks.

    Raises
    ------
    DataError
        (or ``error``) If the path is no regular file or can't be opened.
    """
    require_regular(path, error)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise error(f"{printable(path)}: can't be read: {problem.strerror}") from None
    if describe_kind(os.fstat(handle).st_mode):  # replaced since
        os.close(handle)
        raise error(f"{printable(path)}: is no regular file any more")
    return handle


# --- 2. texts --------------------------------------------------------------------------------------------


def read_text(path: str | Path, what: str, error: type[BadpixError] = DataError, limit: int = TEXT_LIMIT) -> str:
    """The text of a file.

    Parameters
    ----------
    path : path
        The file.
    what : str
        What it is, for messages (``manual list``).
    error : type
        Error to raise.
    limit : int
        Largest size, bytes.

    Raises
    ------
    DataError
        (or ``error``) If it is no regular file, too large, or no text.
    """
    content = read_bytes(path, what, error, limit)
    start = content[:16]
    if b"\0" in content[:1024] or start.startswith((b"SIMPLE  =", b"\x1f\x8b")):
        raise error(f"{printable(path)}: {what} can't be read: it is no text; it begins with {quote(start)}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{printable(path)}: {what} can't be read: byte {problem.start} is no UTF-8 text") from None


def read_bytes(path: str | Path, what: str, error: type[BadpixError] = DataError, limit: int = TEXT_LIMIT) -> bytes:
    """The bytes of a small file; errors as :func:`read_text`."""
    fault = find_fault(path)
    if fault:
        raise error(f"{printable(path)}: {what} can't be read: {fault}")
    with os.fdopen(open_regular(path, error), "rb") as stream:
        try:
            content = stream.read(limit + 1)
        except OSError as problem:
            raise error(f"{printable(path)}: {what} can't be read: {problem.strerror}") from None
    if len(content) > limit:
        raise error(f"{printable(path)}: {what} can't be read: larger than {limit >> 20} MB")
    return content


# --- 3. parsers ------------------------------------------------------------------------------------------


@contextmanager
def understood(path: str | Path, form: str, error: type[BadpixError] = DataError) -> Iterator[None]:
    """Turn whatever a parser raises inside the block into one error with the name of the file.

    Parameters
    ----------
    path : path
        The file that is parsed.
    form : str
        What it should be (``FITS``, ``YAML``).
    error : type
        Error to raise.
    """
    try:
        yield
    except (BadpixError, MemoryError):
        raise
    except RecursionError:
        raise error(f"{printable(path)}: not readable as {form}: nested too deeply") from None
    except Exception as problem:
        raise error(f"{printable(path)}: not readable as {form}: {first_line(problem)}") from None


def check_tree(tree: Any, path: str | Path, error: type[BadpixError] = DataError) -> None:
    """Make sure that a tree of mappings and lists is of a size that can be worked on, shared parts counted each time.

    Raises
    ------
    DataError
        (or ``error``) If it has more than :data:`NODE_LIMIT` nodes or :data:`DEPTH_LIMIT` levels; a tree that
        holds itself has both.
    """
    left, todo = NODE_LIMIT, [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        inside = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
        left -= 1 + len(inside)
        if left < 0 or depth > DEPTH_LIMIT:
            raise error(
                f"{printable(path)}: more than {NODE_LIMIT} values or {DEPTH_LIMIT} levels (do its lists refer to "
                "each other?)"
            )
        todo += [(value, depth + 1) for value in inside if isinstance(value, dict | list | tuple)]


def whole_number(text: str) -> int:
    """A number in ASCII digits: no blanks, no underscores, no digits of other scripts.

    Raises
    ------
    ValueError
        If it is none, or has more than :data:`MOST_DIGITS` digits.
    """
    digits = re.fullmatch(r"[+-]?([0-9]+)", text)
    if digits is None:
        raise ValueError(f"found {quote(text)}, expected a whole number")
    if len(digits[1]) > MOST_DIGITS:
        raise ValueError(f"found {quote(text)}, expected at most {MOST_DIGITS} digits")
    return int(text)


# --- 4. quoting ------------------------------------------------------------------------------------------


def quote(value: Any, most: int = QUOTED) -> str:
    """A piece of outside content for a message: at most ``most`` characters, printable; texts in quotes."""
    if not isinstance(value, str | bytes):
        shown = repr(value)
        return shown if len(shown) <= most else shown[:most] + "..."
    return repr(value[:most]).removeprefix("b") + ("..." if len(value) > most else "")


def printable(text: Any) -> str:
    """A name as it may stand in a message: control characters and lone surrogates escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def header_text(text: Any) -> str:
    """A name as a FITS header or table takes it: ASCII, what is not printable there as ``?``."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in str(text))


def first_line(error: BaseException) -> str:
    """What an error says first, short and printable; of an error of YAML what is wrong, and the line."""
    line = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        line = f"line {mark.line + 1}: {problem}"
    return printable(line if len(line) <= MESSAGE else line[:MESSAGE] + "...")
