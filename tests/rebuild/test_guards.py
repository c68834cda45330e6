"""What supervises a rebuild: time limits, damaged state, its own products."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from mask_files import make_mask

from badpix.rebuild import jobs, plan, record, supervise
from badpix.rebuild.searches import Options

YAML = """
detector: MIRIMAGE
merge: {{masks: ["masks/*.fits", "old.fits"]}}
output: "masks/{{instrument}}_{{detector}}_mask_{{date}}.fits"
rebuild: {{settle: 0, max_hours: {hours}}}
"""


def job_in(folder: Path, hours: float = 1.0) -> jobs.Job:
    path = folder / "job.yml"
    path.write_text(YAML.format(hours=hours))
    return jobs.read_file(path)[0]


# --- time ------------------------------------------------------------------------------------------------


class Child:
    """A process that ends when it is asked to, or only when it is killed."""

    def __init__(self, stubborn: bool) -> None:
        self.stubborn, self.calls = stubborn, []

    def start(self) -> None:
        self.calls.append("start")

    def terminate(self) -> None:
        self.calls.append("terminate")

    def kill(self) -> None:
        self.calls.append("kill")

    def join(self, seconds: float | None = None) -> None:
        self.calls.append("join")

    def is_alive(self) -> bool:
        return self.stubborn and "kill" not in self.calls


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_detector_that_takes_too_long_is_ended_and_said(tmp_path, monkeypatch, stubborn):
    child = Child(stubborn)
    context = SimpleNamespace(Pipe=lambda duplex: (Pipe(), Pipe()), Process=lambda **_: child)
    monkeypatch.setattr(supervise, "get_context", lambda _: context)
    monkeypatch.setattr(supervise, "POLL", 0.01)
    job = job_in(tmp_path, hours=0.001)
    clock = iter(range(100))
    monkeypatch.setattr(supervise.time, "monotonic", lambda: float(next(clock)))
    outcome = supervise._start_child(job, Options(), [])
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "not done after 0.001 hours (max_hours): ended" in outcome.reasons[0]
    assert child.calls == ["start", "terminate", "join", *(["kill", "join"] if stubborn else [])]
    assert record.read_record(outcome.record)["reasons"] == outcome.reasons


class Pipe:
    """A pipe through which nobody speaks."""

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def close(self) -> None:
        return None

    def poll(self, seconds: float) -> bool:
        return False


# --- damaged state ---------------------------------------------------------------------------------------

SOUND = {
    "status": "accepted",
    "detector": "MIRIMAGE",
    "finished": "2026-01-01T00:00:00Z",
    "key": "k",
    "keys": {},
    "inputs": [{"stage": "flats", "role": "rate", "path": "a", "size": 1, "mtime_ns": 1, "inode": 1, "sha256": "s"}],
    "parameters": {"flats": {}},
    "versions": {},
    "outputs": [{"name": "m.fits", "size": 1, "sha256": "s"}],
    "flags": {"any": 3},
    "rejected": [],
}
DAMAGED = {
    "a list": [],
    "a text": "x",
    "no key": {k: v for k, v in SOUND.items() if k != "key"},
    "key of another kind": {**SOUND, "key": 3},
    "inputs of another kind": {**SOUND, "inputs": {"a": 1}},
    "an input without a path": {**SOUND, "inputs": [{"stage": "flats"}]},
    "an input that is a text": {**SOUND, "inputs": ["a"]},
    "no outputs": {**SOUND, "outputs": []},
    "an output elsewhere": {**SOUND, "outputs": [{"name": "../m.fits", "size": 1, "sha256": "s"}]},
    "a size that is a text": {**SOUND, "outputs": [{"name": "m.fits", "size": "1", "sha256": "s"}]},
    "parameters of another kind": {**SOUND, "parameters": {"flats": 3}},
    "flags that are texts": {**SOUND, "flags": {"any": "many"}},
    "reasons that are no list": {**SOUND, "reasons": "because"},
    "rejected that are texts": {**SOUND, "rejected": ["a"]},
}
BYTES = {
    "empty": b"",
    "cut": json.dumps(SOUND).encode()[:90],
    "zeros": b"\0" * 100,
    "deep": b"[" * 100_000,
    "latin": b"\xff\xfe{}",
    "number": b"1e999",
}


def test_a_sound_record_is_read(tmp_path):
    path = tmp_path / "m_record.json"
    path.write_text(json.dumps(SOUND))
    assert record.read_record(path)["key"] == "k"


@pytest.mark.parametrize("kind", [*DAMAGED, *BYTES])
def test_a_damaged_record_counts_as_absent_and_leaves_the_others(tmp_path, kind):
    (tmp_path / "good_record.json").write_text(json.dumps(SOUND))
    path = tmp_path / "m_record.json"
    path.write_bytes(BYTES[kind] if kind in BYTES else json.dumps(DAMAGED[kind]).encode())
    assert record.read_record(path) is None
    assert [r["path"] for r in record.list_records(tmp_path)] == [str(tmp_path / "good_record.json")]
    assert len(record.history_rows(record.list_records(tmp_path))) == 1


# --- own products ----------------------------------------------------------------------------------------


def test_a_glob_that_names_the_outputs_leaves_them_out_and_says_so(tmp_path):
    make_mask(tmp_path / "old.fits")
    inside = tmp_path / "masks/mirimage/20260101/product"
    inside.mkdir(parents=True)
    make_mask(inside / "miri_mirimage_mask_20260101.fits")
    (tmp_path / "masks/link.fits").symlink_to(inside / "miri_mirimage_mask_20260101.fits")
    make_mask(tmp_path / "masks/other.fits")
    job = job_in(tmp_path)
    merged = [Path(s.path).name for s in plan.find_sources(job) if s.role == "masks"]
    assert sorted(merged) == ["old.fits", "other.fits"]
    assert [Path(path).name for _, path, _ in plan.list_own(job)] == ["link.fits"]
