"""Parameter files: YAML (or ASDF) with one section a command, not yet checked against the declarations.

Repeated keys, lists that hold each other and whatever is no mapping are refused. Paths in a file start at the file's
folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from badpix.errors import UsageError, nearest
from badpix.outside import check_tree, find_fault, printable, quote, read_bytes, read_text, understood
from badpix.settings.param import Settings, section

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 16 << 20  # bytes of a parameter file


def load_file(path: str | Path) -> dict[str, Any]:
    """The content of a parameter file (YAML, or ASDF by its name), not yet checked.

    Raises
    ------
    UsageError
        If it can't be read, is no mapping, or repeats a key.
    """
    from pathlib import Path

    path = Path(path)
    if find_fault(path) == "no such file":
        raise UsageError(f"{printable(path)}: no such parameter file")
    content = read_bytes(path, "parameter file", UsageError, LIMIT)
    tree = _load_asdf(path, content) if path.suffix.lower() == ".asdf" else _load_yaml(path)
    check_tree(tree, path, UsageError)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: found {type(tree).__name__}, expected sections such as 'flats:'")
    return {str(k): v for k, v in tree.items()}


def _load_yaml(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses repeated keys instead of keeping the last one."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        keys = [loader.construct_object(k, deep=True) for k, _ in node.value]  # type: ignore[no-untyped-call]
        for key in keys:
            if keys.count(key) > 1:
                raise UsageError(f"{path}: line {node.start_mark.line + 1}: key {key!r} is given twice")
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    text = read_text(path, "parameter file", UsageError, LIMIT)
    with understood(path, "YAML", UsageError):
        return yaml.load(text, Loader)


def _load_asdf(path: Path, content: bytes) -> Any:
    import io
    import warnings

    import asdf
    import yaml

    with understood(path, "ASDF", UsageError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = content.partition(b"\n...")[0].decode("utf-8")
        for node in _mappings(yaml.compose(text, Loader=yaml.SafeLoader)):
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise UsageError(f"{path}: line {node.start_mark.line + 1}: key {quote(key)} is given twice")
        with asdf.open(io.BytesIO(content), lazy_load=False) as af:
            return {k: v for k, v in af.tree.items() if k not in ("asdf_library", "history")}


def _mappings(node: Any) -> Iterator[Any]:
    """All mappings of a composed tree, each once."""
    seen: set[int] = set()
    todo = [node]
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen or isinstance(node.value, str):
            continue
        seen.add(id(node))
        if node.id == "mapping":
            yield node
        todo += [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]


def section_values(
    tree: Mapping[str, Any], sec: type[Settings], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a parameter file says about one section: ``(values, inputs)``; both empty where it says nothing.

    Raises
    ------
    UsageError
        If the section is no mapping or names an unknown kind of input.
    """
    values = tree.get(sec.section) or {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{source}: {sec.section}: found {values!r}, expected 'name: value' lines")
    inputs = values.get("inputs") or {}
    if not isinstance(inputs, Mapping):
        raise UsageError(f"{source}: {sec.section}.inputs: found {inputs!r}, expected 'rate: files'")
    for role, files in inputs.items():
        if role not in sec.inputs:
            raise UsageError(f"{source}: {sec.section}.inputs: unknown kind {role!r}{nearest(str(role), sec.inputs)}")
        if not all(isinstance(f, str) for f in (files if isinstance(files, list) else [files])):
            raise UsageError(f"{source}: {sec.section}.inputs.{role}: found {files!r}, expected names of files")
    return {k: v for k, v in values.items() if k != "inputs"}, dict(inputs)


def resolve_paths(name: str, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A section of a parameter file with paths that start at the file's folder, not at the current directory."""
    try:
        sec = section(name)
    except ModuleNotFoundError:
        return dict(values)
    kinds = {p.name: p.kind for p in sec.params()}
    out = dict(values)
    for key, value in values.items():
        if key == "inputs" and isinstance(value, Mapping):
            out[key] = {role: _beside(folder, v) for role, v in value.items()}
        elif kinds.get(key) in ("path", "paths") and value:
            found = _beside(folder, value)
            out[key] = found[0] if kinds[key] == "path" and isinstance(value, str) else found
    return out


def _beside(folder: Path, value: Any) -> Any:
    """Names of files that start at a folder; what is no name stays as it is, for the check that follows."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return value
    special = ("none", "default")
    keep = [n in special or os.path.isabs(n.lstrip("@")) for n in names]
    return [
        n if k else ("@" if n.startswith("@") else "") + str(folder / n.lstrip("@"))
        for n, k in zip(names, keep, strict=True)
    ]
