"""Shared by the tests with real clients: they run in this process where a process of their own is not what is tested.

Each step of the pipeline ends with a full garbage collection, which takes longer than the step itself on small
frames; so what is imported by now is not looked through again and again.
"""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from badpix.trust import clients
from badpix.trust.clients import Answer


@pytest.fixture(autouse=True)
def _quick_collections() -> Iterator[None]:
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def ask(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Answer]:
    """``ask("dq_init", mask)`` and ``ask("certify", mask)``: what `badpix check --pipeline` asks elsewhere."""

    def run(task: str, path: Path, exposure: Path | None = None) -> Answer:
        from crds.core import log

        folder = tmp_path_factory.mktemp("client")
        for name in ("CRDS_PATH", "CRDS_SERVER_URL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in clients._offline(str(folder)).items():
            monkeypatch.setenv(name, value)
        log.reset()
        return Answer(task, **clients.TASKS[task](folder, path, exposure))

    return run
