"""Parameters: one declaration, the same values from YAML, ASDF and command line, and one message for each mistake."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import asdf
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.cli.common import collect, load_files, parse_size
from badpix.cli.main import badpix
from badpix.errors import BadpixError, UsageError
from badpix.settings import files as settings_files
from badpix.settings import param, render
from badpix.settings.darks import DarkSettings
from badpix.settings.flats import FlatSettings
from badpix.settings.param import Settings, check_value
from badpix.settings.reference import ReferenceSettings
from badpix.settings.values import as_text

FLATS = FlatSettings
SECTIONS = ("flats", "darks", "merge", "reference", "ifu", "image", "check", "rebuild", "prepare", "simulate")
COMMANDS = ("flats", "darks", "merge")

# Call of the documented algorithm, all defaults (documentation of jwst_reffiles' bad_pixels)
DOCUMENTED = {
    "flats": {
        "dead_search": True,
        "low_qe_and_open_search": True,
        "dead_search_type": "sigma_rate",
        "flat_mean_sigma_threshold": 3,
        "flat_mean_normalization_method": "smoothed",
        "smoothing_box_width": 15,
        "smoothing_type": "Box2D",
        "dead_sigma_threshold": 5.0,
        "max_dead_norm_signal": None,
        "run_dead_flux_check": False,
        "dead_flux_check_files": None,
        "flux_check": 45000,
        "max_low_qe_norm_signal": 0.5,
        "max_open_adj_norm_signal": 1.05,
        "flat_do_not_use": [],
    },
    "darks": {
        "dark_stdev_clipping_sigma": 5.0,
        "dark_max_clipping_iters": 5,
        "dark_noisy_threshold": 5,
        "max_saturated_fraction": 0.5,
        "max_jump_limit": 10,
        "jump_ratio_threshold": 5,
        "early_cutoff_fraction": 0.25,
        "pedestal_sigma_threshold": 5,
        "rc_fraction_threshold": 0.8,
        "low_pedestal_fraction": 0.8,
        "high_cr_fraction": 0.8,
        "dark_do_not_use": ["hot", "rc", "low_pedestal", "high_cr"],
    },
}


def all_params():
    return [
        pytest.param(sec, p, id=f"{sec.section}.{p.name}")
        for sec in map(param.section, SECTIONS)
        for p in sec.params()
    ]


# --- the declarations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTED)
@pytest.mark.parametrize("parameter_set", param.SETS)
def test_documented_parameters_keep_their_documented_values(name, parameter_set):
    values = dict(param.section(name).in_set(parameter_set).items())
    if name == "darks":  # types that the documentation does not know may stand in its list
        values["dark_do_not_use"] = [
            v for v in values["dark_do_not_use"] if v not in ("intermittent", "noisy", "telegraph")
        ]
    assert {key: values[key] for key in DOCUMENTED[name]} == DOCUMENTED[name]


def test_documented_mapping_of_flags():
    values = DarkSettings.in_set().flag_values
    documented = {"hot": ["HOT"], "rc": ["RC"], "low_pedestal": ["OTHER_BAD_PIXEL"], "high_cr": ["TELEGRAPH"]}
    assert {key: values[key] for key in documented} == documented


@pytest.mark.parametrize(("sec", "p"), all_params())
def test_declarations_are_sound(sec, p):
    assert p.kind in param.KINDS
    assert p.help.endswith(".")
    assert "  " not in p.help
    assert len(p.keyword) <= 8
    assert p.keyword == p.keyword.upper()
    for parameter_set in param.SETS:
        value = p.value_in(parameter_set)
        assert value is not None or p.optional
        assert check_value(p, value, "test") == value
        assert type(check_value(p, value, "test")) is type(value), "the default is in the type of its kind"


def test_names_and_keywords_are_declared_once():
    for name in SECTIONS:
        names = param.section(name).names()
        assert len(names) == len(set(names))
    words = [p.keyword for name in COMMANDS for p in param.section(name).params() if p.keyword]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("parameter_set", param.SETS)
def test_yaml_loads_back(tmp_path, name, parameter_set):
    sec = param.section(name)
    path = tmp_path / "p.yml"
    path.write_text(render.render_yaml(sec, parameter_set))
    values, _ = settings_files.section_values(settings_files.load_file(path), sec, "p.yml")
    assert list(values) == sec.names()
    assert sec.from_values(values, "p.yml") == sec.in_set(parameter_set)


def test_tables_of_the_documentation():
    rows = render.render_table(FLATS).splitlines()
    assert len(rows) == 2 + len(FLATS.params())
    assert all(row.count("|") == rows[0].count("|") for row in rows)


def test_history_and_cards_tell_every_value():
    values = FLATS.in_set()
    lines = render.history_lines(values)
    assert [line.split(" = ")[0] for line in lines] == [f"flats.{n}" for n in FLATS.names()]
    assert "flats.dead_sigma_threshold = 5.0 sigma [BPFDEDSG]: " in "\n".join(lines)
    cards = {key: value for key, value, _ in render.cards(values)}
    assert cards["BPFSMOTH"] == 15
    assert cards["BPFMXDED"] == "none"
    assert cards["BPFDEAD"] is True
    assert all(len(str(value)) <= 68 for value in cards.values())


# --- classes ---------------------------------------------------------------------------------------------


def test_settings_are_checked_however_they_are_made():
    assert FLATS(open_sigma=5).open_sigma == 5
    for make in (lambda: FLATS(open_sigma=-1), lambda: replace(FLATS(), open_sigma=-1)):
        with pytest.raises(UsageError, match=r"FlatSettings.open_sigma: -1.0 is out of range"):
            make()
    with pytest.raises(UsageError, match=r"open_test: 'x' is not one of"):
        FLATS(open_test="x")
    with pytest.raises(TypeError):
        FLATS(open_sigmas=5)


def test_groups_are_shown_in_the_order_of_the_bases():
    headings = list(dict.fromkeys(p.group for p in DarkSettings.params()))
    assert headings == [base.__doc__ for base in DarkSettings.__bases__]


def test_a_changed_value_is_of_one_instance():
    first = DarkSettings()
    first.flag_values["hot"].append("DEAD")
    assert DarkSettings().flag_values["hot"] == ["HOT"]


# --- values ----------------------------------------------------------------------------------------------


def refused(name, value, words):
    with pytest.raises(UsageError) as caught:
        FLATS.from_values({name: value}, "my.yml")
    assert f"my.yml: flats{'.' if name in FLATS.names() else ':'}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dead_sigma_treshold", "unknown parameter 'dead_sigma_treshold'; did you mean 'dead_sigma_threshold'?"),
        ("smothing_type", "did you mean 'smoothing_type'?"),
        ("zzz", "known are dead_search, "),
    ],
)
def test_unknown_names(name, words):
    refused(name, 3, words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("smoothing_box_width", 1, "1 is out of range; expected from 3 to 201 pixels"),
        ("smoothing_box_width", 202, "out of range"),
        ("smoothing_box_width", 7.5, "found 7.5, expected a whole number"),
        ("smoothing_box_width", "many", "found 'many', expected a whole number"),
        ("smoothing_box_width", True, "found True, expected a whole number"),
        ("smoothing_box_width", float("inf"), "expected a whole number"),
        ("smoothing_box_width", float("nan"), "expected a whole number"),
        ("smoothing_box_width", [15], "expected a whole number"),
        ("flux_check", float("nan"), "out of range"),
        ("flux_check", float("inf"), "out of range"),
        ("flux_check", -1, "expected at least 0 DN"),
        ("flux_check", None, "found None, expected a number"),
        ("flux_check", True, "expected a number"),
        ("flux_check", {"a": 1}, "expected a number"),
        ("max_dead_norm_signal", "little", "expected a number or none"),
        ("dead_search", 1, "found 1, expected true or false"),
        ("dead_search", "maybe", "expected true or false"),
        ("smoothing_type", "Box", "'Box' is not one of Box2D, Median"),
        ("smoothing_type", 3, "not one of"),
        ("flat_do_not_use", ["DEAD", "HOT"], "'HOT' is not one of DEAD, LOW_QE, OPEN, ADJ_OPEN"),
        ("flat_do_not_use", [1], "expected a list of words"),
        ("flat_do_not_use", 7, "expected a list of words"),
        ("flat_do_not_use", {"DEAD": True}, "expected a list of words"),
        ("manual_flag_file", ["a", "b"], "expected a file name"),
    ],
)
def test_wrong_values(name, value, words):
    refused(name, value, words)


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("smoothing_box_width", "21", 21),
        ("smoothing_box_width", 21.0, 21),
        ("smoothing_type", "median", "Median"),
        ("flat_mean_normalization_method", "none", "none"),
        ("max_dead_norm_signal", "None", None),
        ("max_dead_norm_signal", None, None),
        ("max_dead_norm_signal", "0.02", 0.02),
        ("dead_search", "no", False),
        ("flat_do_not_use", "DEAD,OPEN", ["DEAD", "OPEN"]),
        ("flat_do_not_use", "dead Open", ["DEAD", "OPEN"]),
        ("flat_do_not_use", [], []),
        ("manual_flag_file", "my_none_file.txt", "my_none_file.txt"),
        ("manual_flag_file", "none", None),
        ("dead_flux_check_files", "a.fits b.fits", ["a.fits", "b.fits"]),
    ],
)
def test_forms_of_values(name, value, result):
    assert getattr(FLATS.from_values({name: value}, "test"), name) == result


@dataclass(frozen=True, kw_only=True)
class ONE(Settings):
    """One parameter of each other kind."""

    section: ClassVar[str] = "one"

    pair: tuple[float, float] = param.param((5.0, 4.0), "A pair.", low=0.0)
    size: tuple[int, int] = param.param((7, 7), "A size.", low=1)
    flags: dict[str, list[str]] = param.param({"hot": ["HOT"]}, "Flags.")
    limits: dict[str, float] = param.param({"HOT": 1.0}, "Limits.")
    steps: dict[str, dict[str, Any]] = param.param({}, "Steps.")
    word: Literal["on", "off"] = param.param("on", "A word.")
    text: str = param.param("x", "Text.")


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("pair", "5.0 3", (5.0, 3.0)),
        ("pair", "5.0,3", (5.0, 3.0)),
        ("pair", [5, 3], (5.0, 3.0)),
        ("size", "7 9", (7, 9)),
        ("flags", {"rc": "RC"}, {"hot": ["HOT"], "rc": ["RC"]}),
        ("flags", "hot:WARM,HOT rc:RC", {"hot": ["WARM", "HOT"], "rc": ["RC"]}),
        ("limits", {"dead": 2}, {"HOT": 1.0, "DEAD": 2.0}),
        ("limits", "dead:2", {"HOT": 1.0, "DEAD": 2.0}),
        (
            "steps",
            "jump.rejection_threshold=5 refpix.odd=true",
            {"jump": {"rejection_threshold": 5}, "refpix": {"odd": True}},
        ),
        ("word", False, "off"),  # YAML reads a bare off as false
        ("word", True, "on"),
        ("text", yaml.safe_load("2026-01-02"), "2026-01-02"),
        ("text", 5, "5"),
    ],
)
def test_forms_of_other_kinds(name, value, result):
    assert getattr(ONE.from_values({name: value}, "test"), name) == result


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pair", "5"),
        ("pair", "1 2 3"),
        ("pair", [1, "x"]),
        ("pair", 5),
        ("pair", [-1, 2]),
        ("size", [7.5, 7]),
        ("flags", "hot"),
        ("flags", 5),
        ("flags", {"hot": 3}),
        ("limits", {"HOT": "x"}),
        ("limits", "HOT"),
        ("steps", "jump=5"),
        ("steps", 5),
        ("steps", {"jump": 5}),
        ("text", ["a"]),
    ],
)
def test_wrong_values_of_other_kinds(name, value):
    with pytest.raises(UsageError, match=f"one.{name}"):
        ONE.from_values({name: value}, "test")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from([(FLATS, p) for p in FLATS.params()] + [(ONE, p) for p in ONE.params()]), JUNK)
def test_any_value_is_taken_or_refused(where, value):
    """Whatever stands in a YAML file: a value of the right type, or one message."""
    sec, p = where
    try:
        out = sec.from_values({p.name: value}, "test")
    except UsageError as error:
        found = str(error)
    else:
        assert sec.from_values(dict(out.items()), "again") == out
        return
    assert p.name in found


# --- files -----------------------------------------------------------------------------------------------


def load(tmp_path, text):
    path = tmp_path / "p.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return settings_files.load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flats:\n  flux_check: 1\n  flux_check: 2\n", "key 'flux_check' is given twice"),
        ("flats: {}\ndarks: {}\nflats: {}\n", "key 'flats' is given twice"),
        ("flats: {flux_check: 1, flux_check: 2}", "given twice"),
        ("a: 1\nb: [1,\nc: 2", "not readable as YAML: line 3: "),
        ("flats:\n\tx: 1", "not readable as YAML"),
        ("- a\n- b\n", "found list, expected sections"),
        ("just text", "found str, expected sections"),
        (b"\xff\xfe\x00flats", "parameter file can't be read: it is no text"),
        ("x: !!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("? [a, b]\n: 1\n", "not readable as YAML"),
        ("a: &x [*x]\nb: *y\n", "not readable as YAML"),
    ],
)
def test_broken_yaml(tmp_path, text, words):
    with pytest.raises(UsageError, match=r"p\.yml") as caught:
        load(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.text(st.characters(max_codepoint=300), max_size=40) | st.binary(max_size=40))
def test_any_text_is_a_tree_or_one_message(tmp_path, text):
    try:
        tree = load(tmp_path, text.encode() if isinstance(text, str) else text)
    except UsageError as error:
        tree = None
        assert "p.yml" in str(error)  # noqa: PT017
    assert tree is None or isinstance(tree, dict)


def test_empty_and_missing_files(tmp_path):
    assert load(tmp_path, "# nothing\n") == {}
    with pytest.raises(UsageError, match="no such parameter file"):
        settings_files.load_file(tmp_path / "none.yml")


def test_merge_keys_are_no_repeated_keys(tmp_path):
    tree = load(tmp_path, "base: &b {flux_check: 1}\nflats:\n  <<: *b\n  dead_search: false\n")
    assert tree["flats"] == {"flux_check": 1, "dead_search": False}


def test_asdf_says_the_same_as_yaml(tmp_path):
    values = {"flux_check": 40000.0, "flat_do_not_use": ["DEAD"], "manual_flag_file": None, "dead_search": False}
    asdf.AsdfFile({"flats": values}).write_to(tmp_path / "p.asdf")
    (tmp_path / "p.yml").write_text(yaml.safe_dump({"flats": values}))
    found = [
        FLATS.from_values(settings_files.section_values(settings_files.load_file(tmp_path / n), FLATS, n)[0], n)
        for n in ("p.asdf", "p.yml")
    ]
    assert found[0] == found[1]
    assert found[0].flux_check == 40000
    (tmp_path / "bad.asdf").write_text("no asdf")
    with pytest.raises(UsageError, match="not readable as ASDF"):
        settings_files.load_file(tmp_path / "bad.asdf")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flats: 5", "p.yml: flats: found 5, expected 'name: value' lines"),
        ("flats: [a]", "expected 'name: value' lines"),
        ("flats: {inputs: 5}", "flats.inputs: found 5"),
        ("flats: {inputs: {rates: x}}", "unknown kind 'rates'; did you mean 'rate'?"),
        ("flat: {}", "unknown section 'flat'; did you mean 'flats'?"),
        ("output: 5\n", "output"),
        ("flats: {inputs: {rate: 5}}", "rate"),
        ("flats: {manual_flag_file: 5.5}", None),
        ("flats: {dead_flux_check_files: [1, 2]}", "dead_flux_check_files"),
        ("flats: {dead_flux_check_files: {a: 1}}", "dead_flux_check_files"),
        ("set: mine\n", "parameter set 'mine' is unknown; known are default, documented"),
        ("flats: {set: 5}\n", "parameter set 5 is unknown"),
    ],
)
def test_wrong_sections(tmp_path, text, words):
    path = tmp_path / "p.yml"
    path.write_text(text)
    options = {"params_files": (str(path),)}

    def read():
        return collect(FLATS, load_files(options), options)

    if words is None:
        read()
        return
    with pytest.raises(UsageError) as caught:
        read()
    assert words in str(caught.value)


def test_paths_start_at_the_folder_of_the_file(tmp_path):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "p.yml"
    path.write_text(
        "output: masks/m.fits\n"
        "flats: {inputs: {rate: 'flats/*.fits', uncal: [/abs/a.fits, '@l.txt']}, manual_flag_file: m.txt,\n"
        "        dead_flux_check_files: [u.fits]}\n"
        "merge: {manual: [m.txt]}\n"
    )
    tree = load_files({"params_files": (str(path),)})
    sub = str(tmp_path / "sub")
    assert tree["output"] == f"{sub}/masks/m.fits"
    assert tree["flats"]["inputs"] == {"rate": [f"{sub}/flats/*.fits"], "uncal": ["/abs/a.fits", f"@{sub}/l.txt"]}
    assert tree["flats"]["manual_flag_file"] == f"{sub}/m.txt"
    assert tree["flats"]["dead_flux_check_files"] == [f"{sub}/u.fits"]
    assert tree["merge"]["manual"] == [f"{sub}/m.txt"]


# --- precedence ------------------------------------------------------------------------------------------


def test_default_then_yaml_then_option(tmp_path):
    one, two = tmp_path / "1.yml", tmp_path / "2.yml"
    one.write_text("set: documented\nflats: {flux_check: 1, open_sigma: 2, mask_sigma: 3}\n")
    two.write_text("flats: {open_sigma: 20, mask_sigma: 30}\n")
    options = {"params_files": (str(one), str(two)), "mask_sigma": "300"}
    values, _ = collect(FLATS, load_files(options), options)
    assert (values.flux_check, values.open_sigma, values.mask_sigma) == (1, 20, 300)
    assert values.open_test == "neighbors"
    values, _ = collect(FLATS, load_files(options), {**options, "parameter_set": "default"})
    assert values.open_test == "excess"
    assert values.flux_check == 1


def other_value(p):
    """A value that a parameter does not have by default, within its range."""
    if p.kind == "bool":
        return not p.default
    if p.kind in ("float", "int"):
        low, high = p.low if p.low is not None else 0, p.high if p.high is not None else 1e6
        number = (p.default or 0) + (1 if p.kind == "int" else 0.125)
        return number if low <= number <= high else (low + (0 if low != p.default else 1))
    if p.kind == "choice":
        return next(c for c in p.choices if c != p.default)
    if p.kind == "list":
        return list(p.choices[:2]) or ["DEAD", "HOT"]
    if p.kind == "paths":
        return ["/data/a.fits", "/data/b.fits"]
    if p.kind in ("pair_float", "pair_int"):
        number = float if p.kind == "pair_float" else int
        return (number((p.low or 0) + 3), number((p.low or 0) + 5))
    made = {
        "str": "some text",
        "path": "/data/list.txt",
        "mapping": {"hot": ["WARM", "HOT"]},
        "numbers": {"HOT": 1.5},
        "settings": {"jump": {"rejection_threshold": 5}},
    }
    return made[p.kind]


def of_command(name):
    """The parameters that a mask command takes: its own and the reference texts."""
    return [(name, p) for p in param.section(name).params()] + [("reference", p) for p in ReferenceSettings.params()]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_does_what_its_line_in_the_yaml_does(tmp_path, command):
    click_command, group = badpix.get_command(None, command), badpix.make_context("badpix", [command])
    for section, p in of_command(command):
        if section == "merge" and p.name in ("manual", "masks"):  # arguments: tested with the command
            continue
        value = other_value(p)
        path = tmp_path / "p.yml"
        path.write_text(yaml.safe_dump({section: {p.name: list(value) if isinstance(value, tuple) else value}}))
        flag = p.name.replace("_", "-")
        text = as_text(value)
        args = [f"--{flag}" if value else f"--no-{flag}"] if p.kind == "bool" else [f"--{flag}", text]
        for form in (args, [args[0].replace("-", "_").replace("__", "--", 1), *args[1:]]):
            by_option = click_command.make_context(command, form, group).params
            by_file = click_command.make_context(command, ["-p", str(path)], group).params
            found = collect(param.section(section), {}, by_option)[0]
            assert found == collect(param.section(section), load_files(by_file), by_file)[0], p.name
            assert getattr(found, p.name) != getattr(param.section(section).in_set(), p.name), p.name


def test_switches_take_true_and_false():
    command, group = badpix.get_command(None, "flats"), badpix.make_context("badpix", ["flats"])
    for word, value in (("--dead-search=false", False), ("--dead_search=True", True), ("--no_dead_search", False)):
        assert command.make_context("flats", [word], group).params["dead_search"] is value


@pytest.mark.parametrize(
    ("text", "size"), [("400M", 400 << 20), ("2G", 2 << 30), ("1.5GiB", 3 << 29), ("64kb", 64 << 10), ("1000", 1000)]
)
def test_sizes(text, size):
    assert parse_size(text, "1G") == size
    assert parse_size(None, text) == size


@pytest.mark.parametrize("text", ["", "0", "-2G", "many", "2X", "nanG", "infG", "G"])
def test_wrong_sizes(text):
    with pytest.raises(BadpixError, match="--max-memory: found"):
        parse_size(text, "")
