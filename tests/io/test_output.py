"""Outputs are whole or absent, whatever happens; equal content gives equal bytes."""

import os
import stat
import threading
import time

import numpy as np
import pytest
from astropy.io import fits

from badpix.errors import DataError, UsageError
from badpix.io import output
from badpix.io.output import atomic_path, check_directory, check_target, table_hdu, write_hdus, write_text


def test_new_file(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".badpix-")
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(UsageError, match="exists; give --overwrite"):
        write_text(target, "new")
    assert target.read_text() == "old"
    write_text(target, "new", overwrite=True)
    assert target.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "a.txt"

    def write_both():
        with atomic_path(target) as temporary:
            temporary.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(UsageError, match="exists"):
        write_both()
    assert target.read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_inside_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic_path(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    with pytest.raises(UsageError, match="exists"):
        write_text(tmp_path / "a.txt", "newer")


def test_permissions_are_those_of_any_new_file(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert stat.S_IMODE(os.stat(tmp_path / "a.txt").st_mode) == stat.S_IMODE(os.stat(tmp_path / "b.txt").st_mode)


def test_full_disk_is_a_message(tmp_path):
    def fill():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"a\.txt: not written: No space left on device"):
        fill()
    assert not list(tmp_path.iterdir())


def test_many_writers_of_one_file(tmp_path):
    """Each of the writers finishes or is told that the file exists; nothing is mixed."""
    target, refused = tmp_path / "a.txt", []

    def write(number):
        try:
            with atomic_path(target) as temporary, open(temporary, "w") as stream:
                for _ in range(50):
                    stream.write(f"{number}\n")
                    time.sleep(0.0005)
        except UsageError:
            refused.append(number)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = target.read_text().splitlines()
    assert len(lines) == 50
    assert len(set(lines)) == 1
    assert len(refused) == 7
    assert len(list(tmp_path.iterdir())) == 1


def test_targets_that_can_not_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a directory"):
        check_target(tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="exists"):
        check_target(tmp_path / "file", overwrite=False)
    with pytest.raises(UsageError, match="file: is a file, expected a folder"):
        check_target(tmp_path / "file" / "x.fits", overwrite=False)
    with pytest.raises(UsageError, match=r"a: can't be made: .*file is a file, expected a folder"):
        check_target(tmp_path / "file" / "a" / "x.fits", overwrite=False)
    assert check_target(tmp_path / "file", overwrite=True) == tmp_path / "file"


def test_directories_are_made(tmp_path):
    check_target(tmp_path / "a" / "b" / "c.fits", overwrite=False)
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="not writable"):
        check_directory(tmp_path)


def test_directory_that_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="not writable"):
        check_directory(tmp_path)


@pytest.mark.slow
def test_fits_files_have_right_checksums_and_no_clock(tmp_path, monkeypatch):
    def hdus():
        table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1, 2])], name="T")
        return fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.arange(6, dtype=np.uint32).reshape(2, 3)), table])

    write_hdus(tmp_path / "a.fits", hdus())
    time.sleep(1.1)
    write_hdus(tmp_path / "b.fits", hdus())
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    with fits.open(tmp_path / "a.fits", checksum=True) as found:  # a wrong sum is a warning, and that an error
        assert all("CHECKSUM" in h.header and "DATASUM" in h.header for h in found)


def test_a_table_is_that_of_astropy(tmp_path):
    columns = [
        fits.Column("value", "J", bzero=2**31, array=np.array([1, 2**31], np.uint32)),
        fits.Column("name", "9A", array=np.array(["a", "bc"])),
        fits.Column("row", "3E", array=np.ones((2, 3), np.float32)),
    ]
    for name, table in (
        ("ours", table_hdu(columns, "T")),
        ("theirs", fits.BinTableHDU.from_columns(columns, name="T")),
    ):
        write_hdus(tmp_path / name, fits.HDUList([fits.PrimaryHDU(), table]))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


# --- targets and names -----------------------------------------------------------------------------------

NO_TARGETS = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "loop": lambda path: os.symlink(path, path),
    "device": lambda path: os.symlink("/dev/null", path),
}


@pytest.mark.parametrize("kind", NO_TARGETS)
def test_only_regular_files_are_targets(tmp_path, kind):
    path = tmp_path / "x.fits"
    NO_TARGETS[kind](path)
    with pytest.raises(UsageError, match=r"x\.fits"):
        output.check_target(path, overwrite=True)
    with pytest.raises(UsageError, match=r"x\.fits"):
        output.write_text(path, "x", overwrite=True)
    with pytest.raises(UsageError, match=r"--log-file: .*x\.fits"):
        output.check_log(path, "--log-file")
    assert path.is_symlink() or not path.is_file()


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_inputs_are_no_targets(tmp_path, link):
    path = tmp_path / "a.fits"
    path.write_text("x")
    link(path, tmp_path / "b.fits")
    for target in (path, tmp_path / "b.fits"):
        with pytest.raises(UsageError, match="is also an input"):
            output.check_target(target, overwrite=True, inputs=[tmp_path / "none", path])
    output.check_target(path, overwrite=True, inputs=[tmp_path / "none"])


def test_names_that_are_too_long_are_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="longer than"):
        output.check_target(tmp_path / ("x" * 250), overwrite=False)
    assert len(list(tmp_path.iterdir())) == 0


@pytest.mark.parametrize(
    ("content", "fine"),
    [
        ("", True),
        ("2026-11-29T01:02:03Z info    12 flats: 3 slope images\n", True),
        ("2026-11-29T01:02:03Z RUNNING detectors=3\n", True),
        ("detector: NRCB1\n", False),
        ("SIMPLE  =                    T", False),
        ("x y flag\n", False),
    ],
)
def test_logs_are_appended_to_logs_alone(tmp_path, content, fine):
    path = tmp_path / "x"
    path.write_text(content)
    if fine:
        output.check_log(path, "--log-file")
    else:
        with pytest.raises(UsageError, match=r"--log-file: .*is no file of this kind"):
            output.check_log(path, "--log-file")
    output.check_log(tmp_path / "new", "--log-file")


@pytest.mark.parametrize("word", ["../x", "/etc", "a b", "", ".hidden", "a\n", "é", "x" + "/" * 3, "%", "{0}"])
def test_words_from_data_become_no_paths(word):
    with pytest.raises(DataError, match="no part of a file name"):
        output.plain_word(word, "asn_id")
    assert output.plain_word("a3001-x_1.2", "asn_id") == "a3001-x_1.2"


@pytest.mark.parametrize(
    "template",
    [
        "{detector.__class__}.fits",
        "{detector!r}",
        "{detector:>9999999}",
        "{0}",
        "{}",
        "{day}.fits",
        "{detector",
        "x}",
    ],
)
def test_templates_know_their_fields_and_nothing_else(template):
    with pytest.raises(UsageError, match="output: "):
        output.fill_template(template, {"detector": "nrcb1"})
    assert output.fill_template("m/{detector}_x.fits", {"detector": "nrcb1"}) == "m/nrcb1_x.fits"
