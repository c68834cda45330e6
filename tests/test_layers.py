"""The layers of the house: imports run one way, and outside libraries stay in their rooms. Part of `make lint`.

An import counts wherever it stands, inside functions and under TYPE_CHECKING as well. A folder without a place in
`LAYERS` fails, so that a new one gets its place here first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

# From the top; rooms on one line are independent of each other.
LAYERS = """
    cli
    api
    rebuild
    review
    prepare
    simulation
    flats darks science ifu image
    mask
    io
    settings
    numerics detectors
    outside
    dq errors
"""
FLOORS = {room: floor for floor, line in enumerate(reversed(LAYERS.split("\n"))) for room in line.split()}
PUBLIC = "badpix"  # the package itself: `badpix/__init__.py`, the public names and the version
DATA = "configs"  # YAML beside the code, with one program that writes it

# Outside libraries, and the rooms (or modules) that may import them.
ROOMS = {
    "astropy.io.fits": {
        "io",
        "mask",
        "simulation",
        "prepare",
        "review/export",
        "review/export_changes",
        "ifu/products",
        "image/products",
        "api/arrays",
    },
    "click": {"cli"},
    "rich": {"cli"},
    "matplotlib": {"io", "review"},
    "jwst": {"prepare", "review/clients"},
    "crds": {"prepare", "review/clients"},
    "dask": {"io"},
    "distributed": {"io"},
}
MODULES = [*sorted((ROOT / "badpix").rglob("*.py")), *sorted((ROOT / "cli").glob("*.py"))]


def module_of(path: Path) -> str:
    """Dotted name, as imports write it."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("badpix") else f"badpix.{name}"


def room_of(module: str) -> str:
    """The folder or single module below `badpix` that a dotted name belongs to."""
    return module.split(".")[1] if "." in module else PUBLIC


def imports(path: Path) -> Iterator[str]:
    """Full dotted names of all imports of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_run_down(path):
    here = room_of(module_of(path))
    for name in imports(path):
        there = room_of(name) if name.startswith("badpix.") else here
        if there in (here, DATA, "__version__") or here == PUBLIC:
            continue
        assert there in FLOORS, f"{name}: give {there} a place in LAYERS"
        assert FLOORS[here] > FLOORS[there], f"{here} imports {name}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_outside_libraries_stay_in_their_rooms(path):
    module = module_of(path).removeprefix("badpix.").replace(".", "/")
    for name in imports(path):
        for library, rooms in ROOMS.items():
            if name == library or name.startswith(library + "."):
                assert module in rooms or room_of(module_of(path)) in rooms, f"{module} imports {name}"


@pytest.mark.slow
def test_modules_import_no_circles():
    graph = {module_of(p): set(imports(p)) for p in MODULES}
    graph = {
        m: {n if n in graph else n.rpartition(".")[0] for n in names} & set(graph) - {m} for m, names in graph.items()
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in sorted(graph[name] - {PUBLIC}):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_every_room_has_a_place():
    rooms = {p.stem for p in (ROOT / "badpix").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms - {"__init__"} <= set(FLOORS)
