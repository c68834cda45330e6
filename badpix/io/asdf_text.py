"""ASDF trees as bytes: written alike each time, and single values changed without reading the rest.

The ASDF extension of a JWST product holds YAML text (metadata, the GWCS) followed by binary blocks. A program
that only has to note "outlier detection: complete" needs no GWCS objects for it (importing them takes longer
than the search), and every byte that it does not touch stays as it was. So:

1. split the extension into text and blocks;
2. compose the YAML into nodes, which know where in the text they stand, and never construct objects from them;
3. replace the text of the scalars that change, insert the keys that are new;
4. join, with the block index at the end moved by the change in length.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits

_END_OF_TREE = re.compile(rb"\r?\n\.\.\.\r?\n")
_BLOCK_INDEX = b"#ASDF BLOCK INDEX"
_PLAIN = re.compile(r"^[A-Za-z_][\w./+-]*$")
_WORDS_OF_YAML = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_EXTENSION = re.compile(r"  - !core/extension_metadata.*\n(?:    .*\n)*")
_EXTENSIONS = re.compile(rf"(?:{_EXTENSION.pattern})+")


def write(tree: Mapping[str, Any], compression: str | None = None) -> bytes:
    """An ASDF file of a tree, the same bytes each time; its arrays compressed (``zlib``), if asked for.

    The package lists the extensions that it used in the order of a set, another one in each process; here they are
    sorted.
    """
    import asdf

    buffer = io.BytesIO()
    asdf.AsdfFile(dict(tree)).write_to(buffer, all_array_compression=compression)
    text, rest = split(buffer.getvalue())
    text = _EXTENSIONS.sub(lambda found: "".join(sorted(_EXTENSION.findall(found[0]))), text, count=1)
    return text.encode("utf-8") + rest


def split(content: bytes) -> tuple[str, bytes]:
    """The YAML text of an ASDF file, up to and with its end marker, and everything behind it.

    Raises
    ------
    ValueError
        If this is no ASDF, or its tree has no end.
    """
    end = _END_OF_TREE.search(content)
    if not content.startswith(b"#ASDF") or end is None:
        raise ValueError("no ASDF tree found")
    return content[: end.end()].decode("utf-8"), content[end.end() :]


def read_value(content: bytes, path: str) -> str | None:
    """The scalar at ``path`` (``meta.group_id``) as text; None where there is none."""
    text, _ = split(content)
    if path.rsplit(".", 1)[-1] not in text:
        return None
    node = compose(text)
    for name in path.split("."):
        node = child(node, name)
        if node is None:
            return None
    return str(node.value) if _is_scalar(node) and node.value not in ("null", "~", "") else None


def update(content: bytes, changes: Mapping[str, str]) -> bytes:
    """The ASDF file with the scalars at the given paths replaced or added.

    Parameters
    ----------
    content : bytes
        An ASDF file.
    changes : mapping
        ``{"meta.cal_step.outlier_detection": "COMPLETE"}``; missing parents are made.
    """
    text, rest = split(content)
    edits = sorted(_edits(text, compose(text), _nest(changes)), key=lambda edit: edit[0])
    parts, at = [], 0
    for start, end, new in edits:
        parts += [text[at:start], new]
        at = end
    changed = "".join([*parts, text[at:]]).encode("utf-8")
    moved = len(changed) + len(rest) - len(content)
    return changed + (_move_block_index(rest, moved) if moved else rest)


def compose(text: str) -> Any:
    """The nodes of a tree, which know their tags and where they stand."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.compose(text, Loader=loader)


def child(node: Any, name: str) -> Any:
    """The value of a key of a mapping node; None where there is none."""
    pairs = node.value if node is not None and isinstance(node.value, list) else []
    return next((value for key, value in pairs if key.value == name), None)


def _nest(changes: Mapping[str, str]) -> dict[str, Any]:
    """Paths as nested mappings."""
    out: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, name = path.split(".")
        inner = out
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return out


def _edits(text: str, node: Any, changes: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    """The pieces (start, end, new text) of a mapping that change; new keys become its first entries."""
    added = {}
    for name, value in changes.items():
        old = child(node, name)
        if old is None:
            added[name] = value
        elif isinstance(value, Mapping) and not _is_scalar(old):
            yield from _edits(text, old, value)
        else:
            yield _replace(text, old, _render(value))  # also `asn: null`, which becomes a mapping
    if added:
        yield _insert(text, node, [f"{name}: {_render(value)}" for name, value in added.items()])


def _render(value: Any) -> str:
    """A scalar, or a mapping in flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_render(inner)}" for name, inner in value.items()) + "}"
    return _scalar(value)


def _is_scalar(node: Any) -> bool:
    return isinstance(node.value, str)


def _replace(text: str, node: Any, new: str) -> tuple[int, int, str]:
    start, end = node.start_mark.index, node.end_mark.index
    space = " " if start and text[start - 1] == ":" else ""  # an empty value starts right at its colon
    return start, end, space + new


def _insert(text: str, node: Any, entries: list[str]) -> tuple[int, int, str]:
    """New first entries of a mapping, in the mapping's own style."""
    start = node.start_mark.index
    if node.flow_style:
        brace = text.index("{", start) + 1
        return brace, brace, ", ".join(entries) + (", " if node.value else "")
    first = node.value[0][0].start_mark
    return first.index, first.index, "".join(f"{entry}\n{' ' * first.column}" for entry in entries)


def _scalar(value: str) -> str:
    if _PLAIN.match(value) and value.lower() not in _WORDS_OF_YAML:
        return value
    return "'" + value.replace("'", "''") + "'"


def _move_block_index(rest: bytes, moved: int) -> bytes:
    at = rest.rfind(_BLOCK_INDEX)
    if at < 0:
        return rest
    index = re.sub(rb"\d+(?=[,\]\s])", lambda m: str(int(m[0]) + moved).encode(), rest[at:].split(b"---", 1)[1])
    return rest[:at] + rest[at:].split(b"---", 1)[0] + b"---" + index


def make_asdf_hdu(tree: dict[str, Any]) -> fits.BinTableHDU:
    """The ASDF extension of a FITS file: an ASDF file as one table cell."""
    from astropy.io import fits

    content = np.frombuffer(write(tree), np.uint8)[None]
    column = fits.Column(name="ASDF_METADATA", format=f"{content.shape[1]}B", array=content)
    return fits.BinTableHDU.from_columns([column], name="ASDF")
