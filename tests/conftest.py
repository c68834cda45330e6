"""Shared by all tests: run from a bare checkout, find the real data, know which clients are installed."""

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
from checkout import DATA, ROOT
from hypothesis import HealthCheck, settings

import badpix

badpix.__path__.append(str(ROOT))  # badpix.cli and badpix.configs from a bare checkout

# the same examples in every run, and no clock: a busy machine is no fault
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("repeatable")

# a shell starts what runs behind it deaf to Ctrl-C, and so would be all commands that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

from badpix.review import clients  # noqa: E402 (badpix is complete by now)
from badpix.review.clients import Answer  # noqa: E402

CACHES = count()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache of hashes; a folder for each is made by those that write one."""
    monkeypatch.setenv("BADPIX_CACHE", str(tmp_path_factory.getbasetemp() / f"cache{next(CACHES)}"))


@pytest.fixture(autouse=True)
def _quick_collections(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each step of the pipeline ends with a full garbage collection, on small frames longer than the step itself:
    what is imported by now is not looked through."""
    client = "clients" in request.keywords
    if client:
        gc.freeze()
    yield
    if client:
        gc.unfreeze()


@pytest.fixture
def ask(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Small real JWST files; a test that needs them skips where they are missing."""
    if not DATA.is_dir():
        pytest.skip(f"the real data folder is missing: {DATA.name} beside the project")
    return DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one; client tests skip, saying why, where their package
    is not installed."""
    long = {item.path for item in items if "clients" in item.keywords or "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in long)
    missing = [name for name in ("jwst", "crds", "stdatamodels") if find_spec(name) is None]
    if missing:
        skip = pytest.mark.skip(reason=f"not installed: {', '.join(missing)} (extra 'pipeline')")
        for item in items:
            if "clients" in item.keywords:
                item.add_marker(skip)
