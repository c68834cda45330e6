"""Changes single values in the metadata of an ASDF tree without reading the rest of it.

The ASDF extension of a JWST product holds YAML text (metadata, the GWCS) followed by binary blocks. A program
that only has to note "outlier detection: complete" needs no GWCS objects for it (importing them takes longer
than the search), and every byte that it does not touch stays as it was. So:

1. split the extension into text and blocks;
2. compose the YAML into nodes, which know where in the text they stand, and never construct objects from them;
3. replace the text of the scalars that change, insert the keys that are new;
4. join, with the block index at the end moved by the change in length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_END_OF_TREE = re.compile(rb"\r?\n\.\.\.\r?\n")
_BLOCK_INDEX = b"#ASDF BLOCK INDEX"
_PLAIN = re.compile(r"^[A-Za-z_][\w./+-]*$")
_WORDS_OF_YAML = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


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
    node = _compose(text)
    for name in path.split("."):
        node = _child(node, name)
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
    for path, value in changes.items():
        text = _set(text, path.split("."), value)
    changed = text.encode("utf-8")
    moved = len(changed) + len(rest) - len(content)
    return changed + (_move_block_index(rest, moved) if moved else rest)


def _compose(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.compose(text, Loader=loader)


def _set(text: str, path: list[str], value: str) -> str:
    node = _compose(text)
    for depth, name in enumerate(path):
        child = _child(node, name)
        last = depth == len(path) - 1
        if child is None or (not last and _is_scalar(child)):
            new = _scalar(value)
            for missing in reversed(path[depth + 1 :]):
                new = f"{{{missing}: {new}}}"
            if child is None:
                return _insert(text, node, name, new)
            return _replace(text, child, new)  # `asn: null` becomes a mapping
        node = child
    return _replace(text, node, _scalar(value))


def _child(node: Any, name: str) -> Any:
    pairs = node.value if node is not None and isinstance(node.value, list) else []
    return next((value for key, value in pairs if key.value == name), None)


def _is_scalar(node: Any) -> bool:
    return isinstance(node.value, str)


def _replace(text: str, node: Any, new: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    space = " " if start and text[start - 1] == ":" else ""  # an empty value starts right at its colon
    return text[:start] + space + new + text[end:]


def _insert(text: str, node: Any, name: str, new: str) -> str:
    """A new first entry of a mapping, in the mapping's own style."""
    start = node.start_mark.index
    if node.flow_style:
        brace = text.index("{", start) + 1
        return f"{text[:brace]}{name}: {new}{', ' if node.value else ''}{text[brace:]}"
    first = node.value[0][0].start_mark
    return f"{text[: first.index]}{name}: {new}\n{' ' * first.column}{text[first.index :]}"


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
