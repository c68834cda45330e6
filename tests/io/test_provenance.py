"""Hashes of inputs, remembered as long as a file is unchanged; the version of the code."""

import hashlib
import json
import os

import pytest

from badpix.errors import DataError
from badpix.io import provenance
from badpix.io.provenance import code_version, hash_file, hash_inputs


@pytest.fixture
def files(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return [tmp_path / name for name in "cab"]


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashes_in_the_order_given(files):
    found = hash_inputs(files)
    assert [i.path for i in found] == files
    assert [i.sha256 for i in found] == [sha(p) for p in files]
    assert [i.size for i in found] == [1000] * 3
    assert hash_inputs([]) == []


def test_hashes_are_remembered(files, monkeypatch):
    first = hash_inputs(files)
    monkeypatch.setattr(provenance, "_hash", lambda path, stop: pytest.fail(f"{path} was read again"))
    assert hash_inputs(files) == first


def test_a_changed_file_is_read_again(files):
    hash_inputs(files)
    files[0].write_bytes(b"d" * 1000)
    os.utime(files[0], ns=(5, 5))
    assert hash_inputs(files)[0].sha256 == sha(files[0])
    replacement = files[1].with_name("new")  # same size and time, another inode
    replacement.write_bytes(b"e" * 1000)
    os.utime(replacement, ns=(files[1].stat().st_atime_ns, files[1].stat().st_mtime_ns))
    os.replace(replacement, files[1])
    assert hash_inputs(files)[1].sha256 == sha(files[1])


@pytest.mark.parametrize("content", ["", "not json", "[1, 2]", '{"a": 1}', "\0\0"])
def test_a_broken_cache_costs_time_only(files, content):
    hash_inputs(files)
    place = provenance._cache_file()
    place.write_text(content)
    assert [i.sha256 for i in hash_inputs(files)] == [sha(p) for p in files]
    assert json.loads(place.read_text())


def test_a_cache_that_can_not_be_written(files, tmp_path, monkeypatch):
    (tmp_path / "blocked").touch()
    monkeypatch.setenv("BADPIX_CACHE", str(tmp_path / "blocked"))
    assert [i.sha256 for i in hash_inputs(files)] == [sha(p) for p in files]
    monkeypatch.setenv("BADPIX_CACHE", "off")
    assert [i.sha256 for i in hash_inputs(files)] == [sha(p) for p in files]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/full", path)])
def test_a_cache_that_is_no_file_costs_time_only(files, make):
    place = provenance._cache_file()
    place.parent.mkdir(parents=True, exist_ok=True)
    make(place)
    assert [i.sha256 for i in hash_inputs(files)] == [sha(p) for p in files]


def test_content_changed_in_place_with_its_times_restored_is_hashed_again(files):
    hash_inputs(files)
    facts = files[0].stat()
    with open(files[0], "r+b") as stream:
        stream.write(b"x")
    os.utime(files[0], ns=(facts.st_atime_ns, facts.st_mtime_ns))
    now = files[0].stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    assert hash_inputs(files)[0].sha256 == sha(files[0])


def test_fresh_hashes_believe_no_memory(files):
    hash_inputs(files)
    place = provenance._cache_file()
    lies = dict.fromkeys(json.loads(place.read_text()), "0" * 64)
    place.write_text(json.dumps(lies))
    assert {i.sha256 for i in hash_inputs(files)} == {"0" * 64}
    assert [i.sha256 for i in hash_inputs(files, fresh=True)] == [sha(p) for p in files]
    assert [i.sha256 for i in hash_inputs(files)] == [sha(p) for p in files]


def test_the_cache_forgets_the_oldest(files, monkeypatch):
    monkeypatch.setattr(provenance, "REMEMBERED", 2)
    hash_inputs(files)
    assert len(json.loads(provenance._cache_file().read_text())) == 2


def test_cache_places(monkeypatch, tmp_path):
    monkeypatch.setenv("BADPIX_CACHE", str(tmp_path))
    assert provenance._cache_file() == tmp_path / "sha256.json"
    monkeypatch.delenv("BADPIX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert provenance._cache_file() == tmp_path / "x" / "badpix" / "sha256.json"


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match=r"gone\.fits: no such file"):
        hash_inputs([tmp_path / "gone.fits"])
    with pytest.raises(DataError, match="is a directory; expected a regular file"):
        hash_file(tmp_path)


def test_version():
    from badpix import __version__

    assert code_version().startswith(__version__)
    assert code_version().isascii()
    assert code_version() is code_version()
