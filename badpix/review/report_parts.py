"""The tables and charts of the report, each a function from the mask (and its evidence) to HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError
from badpix.io.evidence import NO_QUANTITY, Evidence, Rule
from badpix.io.exposure import open_exposure
from badpix.mask import update
from badpix.mask.combine import count_flags
from badpix.mask.file import Mask
from badpix.mask.history import join_history
from badpix.review import charts, choose, explain, histograms, readings
from badpix.review.check import Checked, common_part
from badpix.review.compare import Comparison
from badpix.review.pixel_ramps import read_ramps, say_levels

FACTS = {
    "DETECTOR": "Detector",
    "INSTRUME": "Instrument",
    "SUBARRAY": "Subarray",
    "READPATT": "Readout pattern",
    "P_READPA": "Readout patterns",
    "EXP_TYPE": "Exposure type",
    "P_EXP_TY": "Exposure types",
    "AUTHOR": "Author",
    "DESCRIP": "Description",
    "PEDIGREE": "Pedigree",
    "USEAFTER": "Use after",
    "DATE": "Date",
    "BPVERSN": "Made by",
}
TOPICS = ("DOCUMENT:", "SOFTWARE:", "DATA USED:", "DIFFERENCES:", "Parameter values and descriptions:", "Note:")
ODD_SIGMA = 8.0  # how far a row or column stands out before it is named
MOST = 12  # transitions and odd lines that are shown
CHARTS = 16  # histograms
LISTED = 300  # recovered pixels of a flag that are listed


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], css: str = "") -> str:
    """A table; numbers to the right; cells that are ready-made HTML are marked by :class:`Markup`."""
    right = [bool(rows) and all(_is_number(row[k]) for row in rows) for k in range(len(columns))]
    css_of = {True: ' class="number"', False: ""}
    head = "".join(f"<th{css_of[r]}>{html.escape(c)}</th>" for c, r in zip(columns, right, strict=True))
    body = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


class Markup(str):
    """Text that is HTML already."""


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    text = html.escape(f"{value:,}" if isinstance(value, int) else str(value))
    return f'<td class="number">{text}</td>' if _is_number(value) else f"<td>{text}</td>"


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float):
        return True
    return not isinstance(value, Markup) and bool(re.fullmatch(r"[-+]?[\d.,]+ ?%?|-", str(value)))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.4f} %"


# --- what it is ------------------------------------------------------------------------------------------


def headline(mask: Mask, checked: Checked, previous: Mask | None) -> str:
    """One sentence with the numbers that matter, and whether the checks passed."""
    science = ~mask.reference
    counts = count_flags(mask.image, science)
    n = int(science.sum())
    errors = sum(f.severity == "error" for f in checked.faults)
    warnings = len(checked.faults) - errors
    verdict = "Checks passed" if checked.passed else "Checks failed"
    detail = ", ".join(
        f"{k} {word}{'s' if k != 1 else ''}" for k, word in ((errors, "error"), (warnings, "warning")) if k
    )
    name = html.escape(mask.path.name if mask.path else "")
    out = f'<p class="eyebrow">Bad-pixel mask</p><h1>{html.escape(mask.detector)}</h1><p class="file">{name}</p>'
    out += (
        f'<p class="lead"><strong>{counts["any"]:,}</strong> of {n:,} science pixels are flagged '
        f"(<strong>{_percent(counts['any'], n)}</strong>), {counts.get('DO_NOT_USE', 0):,} are not to be used "
        f"({_percent(counts.get('DO_NOT_USE', 0), n)})."
    )
    if previous is not None:
        old, new, shared = common_part(previous, mask)
        before = count_flags(old, shared)["any"]
        now = count_flags(new, shared)["any"]
        out += f" The previous mask flagged {before:,} ({now - before:+,} now)."
    css = "good" if checked.passed else "bad"
    return out + f'</p><p><span class="verdict {css}">{verdict}</span> {html.escape(detail)}</p>'


def facts_table(mask: Mask) -> str:
    """Keywords that say what the mask is, and its window."""
    rows = [[label, str(mask.header[key])] for key, label in FACTS.items() if mask.header.get(key) not in (None, "")]
    w = mask.window
    rows.append(["Window", f"{w.xsize} x {w.ysize} pixels, from ({w.xstart}, {w.ystart}) counted from 1"])
    return table(["", ""], rows, "facts")


def check_list(checked: Checked) -> str:
    """Errors and warnings of the checks."""
    if not checked.faults:
        return f"<p>Nothing found. Checked: {html.escape(', '.join(checked.done))}.</p>"
    rows = "".join(
        f'<li class="{f.severity}"><strong>{f.severity.capitalize()}</strong> '
        f"<code>{html.escape(f.rule)}</code> {html.escape(f.message)}</li>"
        for f in checked.faults
    )
    return f'<ul class="faults">{rows}</ul><p>Checked: {html.escape(", ".join(checked.done))}.</p>'


# --- counts ----------------------------------------------------------------------------------------------


def count_table(mask: Mask, checked: Checked, pair: Comparison | None, colors: Mapping[str, str]) -> str:
    """Science pixels by flag, how many are unusable; of the previous mask how many stayed, appeared and went."""
    science = ~mask.reference
    inside = mask.image[science]
    unusable = (inside & np.uint32(dq.VALUE["DO_NOT_USE"])) != 0
    changes = {c.flag: c for c in pair.changes} if pair is not None else {}
    rows = []
    for row in checked.flags:
        name = row["flag"]
        value = dq.VALUE.get(name, 0xFFFFFFFF)
        swatch = f'<span class="swatch" style="background:{colors[name]}"></span>' if name in colors else ""
        label = "any flag" if name == "any" else name
        cells: list[Any] = [
            Markup(f'{swatch}<span data-flag="{name}">{label}</span>'),
            row["pixels"],
            f"{row['percent']:.4f} %",
        ]
        cells.append(int((unusable & ((inside & np.uint32(value)) != 0)).sum()))
        if pair is not None:
            one = changes.get(name)
            cells += [one.old, f"+{one.appeared:,}", f"-{one.disappeared:,}"] if one else [0, "+0", "-0"]
        rows.append(cells)
    columns = ["Flag", "Pixels", "Share of science", "Not to be used"]
    return table(columns + (["Previous", "Appeared", "Gone"] if pair is not None else []), rows, "counts")


def search_table(mask: Mask, evidence: Evidence | None) -> str:
    """What each search found, from its map, and by which limits."""
    if evidence is None:
        return "<p>No evidence beside the mask: its searches are not known here.</p>"
    rows = []
    for name in readings.search_names(evidence):
        found = evidence.images.get(f"is_{name.lower()}")
        own = [r for r in evidence.rules if r.search == name and not _is_veto(r.quantity)]
        limits = "; ".join(dict.fromkeys(_limit_words(r) for r in own))
        count = "-" if found is None else int(np.count_nonzero(found[:, :]))
        rows.append([name, count, ", ".join(readings.flags_of_search(mask, name)), limits])
    return table(["Search", "Pixels", "Sets", "Limits"], rows) + source_table(mask, evidence)


def source_table(mask: Mask, evidence: Evidence) -> str:
    """How many flags of each type come from where: searches, manual lists, older masks."""
    if not evidence.sources:
        return ""
    science = ~mask.reference
    rows = []
    for source in evidence.sources:
        flags = np.asarray(evidence.images[f"from_{source.number}"][:, :])[science]
        counts = {
            f.name: int(np.count_nonzero(flags & np.uint32(f.value))) for f in dq.FLAGS if f.name != "DO_NOT_USE"
        }
        told = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "DO_NOT_USE alone"
        via = f" (by way of {source.via})" if source.via else ""
        rows.append([source.kind, f"{source.name}{via}", source.date, int(np.count_nonzero(flags)), told])
    head = "<h3>Where the flags come from</h3>"
    return head + table(["Kind", "Source", "Use after", "Pixels", "Flags"], rows)


def update_table(mask: Mask, evidence: Evidence | None) -> str:
    """What became of the flags of the mask that was brought up to date; empty for other masks."""
    if evidence is None:
        return ""
    states = {
        name.removeprefix("update_").upper(): np.asarray(image[:, :])
        for name, image in evidence.images.items()
        if name.startswith("update_")
    }
    counts = update.count_states(states, ~mask.reference)
    if not counts:
        return ""
    rows = [
        [
            name,
            row["confirmed"],
            row["new"],
            row["recovered"],
            row["retyped"],
            row["not_testable"],
            "; ".join(f"{n:,} {why}" for why, n in row["reasons"].items()),
        ]
        for name, row in counts.items()
    ]
    columns = ["Flag", "Confirmed", "New", "Recovered", "Another type", "Not testable", "Why not"]
    return "<h3>The update</h3>" + table(columns, rows) + _recovered_list(states, mask)


def _recovered_list(states: Mapping[str, NDArray[np.uint8]], mask: Mask) -> str:
    """Pixels that recovered, x and y of the full frame, by flag; folded away."""
    corner = mask.window.xstart - 1, mask.window.ystart - 1
    rows: list[tuple[str, int, str]] = []
    for name, state in states.items():
        y, x = np.nonzero((state == update.State.RECOVERED) & ~mask.reference)
        if x.size:
            pixels = [f"({int(a) + corner[0]}, {int(b) + corner[1]})" for a, b in zip(x, y, strict=True)]
            more = f" and {len(pixels) - LISTED:,} more" if len(pixels) > LISTED else ""
            rows.append((name, len(pixels), ", ".join(pixels[:LISTED]) + more))
    if not rows:
        return ""
    total = sum(row[1] for row in rows)
    told = table(["Flag", "Pixels", "x, y"], rows)
    return f"<details><summary>Recovered pixels ({total:,} flags)</summary>{told}</details>"


def _is_veto(quantity: str) -> bool:
    """Whether a quantity is only the yes or no of further tests."""
    return quantity.endswith((readings.WITHHELD, readings.OTHERWISE))


def _limit_words(rule: Rule) -> str:
    limit = rule.limit if isinstance(rule.limit, str) else f"{rule.limit:.4g}"
    return f"{rule.quantity} {rule.comparison} {limit} {rule.unit}".strip()


def transitions_table(pair: Comparison | None, previous: Mask | None) -> str:
    """What changed since the previous mask: the commonest kinds at once, all of them when opened."""
    if pair is None or previous is None:
        return "<p>No previous mask was given (<code>--against</code>).</p>"
    total = sum(t.pixels for t in pair.transitions)
    name = html.escape(previous.path.name if previous.path else "the previous mask")
    out = f"<p>{total:,} pixels changed since {name}.</p>"
    if not total:
        return out
    rows = [[t.old, t.new, t.pixels] for t in pair.transitions]
    out += table(["From", "To", "Pixels"], rows[:MOST])
    rest = rows[MOST:]
    if rest:
        pixels = sum(t.pixels for t in pair.transitions[MOST:])
        out += f"<details><summary>{len(rest)} rarer kinds, {pixels:,} pixels</summary>"
        out += table(["From", "To", "Pixels"], rest) + "</details>"
    return out


# --- where -----------------------------------------------------------------------------------------------


def amplifier_table(mask: Mask) -> str:
    """Density of flagged pixels in the region of each amplifier."""
    facts = detectors.get(mask.detector)
    amplifiers = detectors.amplifier_map(facts, mask.window)
    science = ~mask.reference
    flagged = (mask.image != 0) & science
    mean = flagged.sum() / max(int(science.sum()), 1)
    rows = []
    for k in range(4):
        here = science & (amplifiers == k)
        if here.any():
            n, bad = int(here.sum()), int((flagged & here).sum())
            ratio = bad / n / mean if mean else 0.0
            rows.append([f"{k + 1}", n, bad, _percent(bad, n), f"{ratio:.2f}"])
    return table(["Amplifier", "Science pixels", "Flagged", "Share", "Relative to all"], rows)


def find_odd_lines(counts: NDArray[np.float64], sigma: float = ODD_SIGMA) -> list[int]:
    """Rows or columns with far more flagged pixels than the others: robust deviation, and at least ten pixels."""
    middle = float(np.median(counts))
    spread = max(1.4826 * float(np.median(np.abs(counts - middle))), np.sqrt(max(middle, 1.0)))
    odd = np.flatnonzero((counts - middle > sigma * spread) & (counts - middle >= 10))
    return [int(k) for k in odd[np.argsort(-counts[odd], kind="stable")][:MOST]]


def profiles(mask: Mask) -> str:
    """Flagged science pixels along columns and rows; lines that stand out are named."""
    flagged = (mask.image != 0) & ~mask.reference
    out = ""
    for name, axis in (("column", 0), ("row", 1)):
        counts = flagged.sum(axis=axis).astype(np.float64)
        odd = find_odd_lines(counts)
        start = (mask.window.xstart if axis == 0 else mask.window.ystart) - 1
        words = ", ".join(f"{name} {k + start} ({counts[k]:.0f} pixels)" for k in odd)
        text = f"Stands out: {words}." if odd else f"No {name} stands out."
        chart = charts.draw_profile(counts, odd, f"Flagged pixels by {name}", f"{name} (from 0)")
        out += f"<figure>{chart}<figcaption>Flagged pixels by {name}. {html.escape(text)}</figcaption></figure>"
    return f'<div class="charts">{out}</div>'


# --- what it was decided on ------------------------------------------------------------------------------


def histogram_figures(mask: Mask, evidence: Evidence | None) -> str:
    """One histogram a quantity that a rule compares with a number; the others follow without limits."""
    if evidence is None:
        return "<p>No evidence beside the mask: make it with <code>--evidence</code>.</p>"
    used = {r.quantity: None for r in evidence.rules}
    limits_only = {r.limit for r in evidence.rules if isinstance(r.limit, str)}
    names = [n for n in evidence.images if not n.startswith(NO_QUANTITY) and n not in limits_only and not _is_veto(n)]
    science = ~mask.reference
    figures: list[str] = []
    for name in sorted(names, key=lambda n: n not in used):
        values = evidence.images[name][:, :]
        some = values[science]
        if len(figures) < CHARTS and np.unique(some[:10_000]).size > 2 and np.isfinite(some).any():
            figures.append(_histogram_figure(evidence, name, values, science))
    return (
        f'<div class="charts">{"".join(figures)}</div>'
        if figures
        else ("<p>The evidence holds no quantity to show.</p>")
    )


def _histogram_figure(evidence: Evidence, name: str, values: NDArray[Any], science: NDArray[np.bool_]) -> str:
    """A quantity: flagged and other pixels, the limits that decide, and their numbers in the caption."""
    limits = histograms.find_limits(evidence, name, science)
    flagged = histograms.find_flagged(evidence, name)
    made = histograms.count(values[science], flagged[science], [one.value for one in limits])
    unit = next((f" ({one.unit})" for one in limits if one.unit), "")
    label = name.replace("_", " ")
    lines = [(one.value, one.label) for one in limits]
    chart = charts.draw_histogram(made, lines, f"Histogram of {label}", label + unit)
    few = " (candidates alone)" if name in readings.CANDIDATES_ONLY else ""
    words = html.escape(histograms.say_limits(limits))
    caption = f"<strong>{html.escape(label)}</strong>{few}. {words}"
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def ramp_examples(mask: Mask, evidence: Evidence | None, paths: Sequence[Path]) -> str:
    """The worst pixel of each type, in the first few exposures."""
    if not paths:
        return "<p>No exposures were given (<code>--ramps</code>).</p>"
    out = ""
    skip: tuple[str, ...] = ("DO_NOT_USE", "REFERENCE_PIXEL", "NON_SCIENCE", "BAD_REF_PIXEL", "ADJ_OPEN")
    if "DARK" in str(open_exposure(paths[0], names=()).header.get("EXP_TYPE", "")):
        skip += ("DEAD", "LOW_QE", "OPEN")  # a dark does not show how a pixel responds to light
    science = ~mask.reference
    for flag in (f.name for f in dq.FLAGS if f.name not in skip):
        if not np.any((mask.image & np.uint32(dq.VALUE[flag]) != 0) & science):
            continue
        x, y = choose.find_worst(mask, evidence, flag, 1)[0]
        try:
            ramps = read_ramps(list(paths)[:3], x, y)[:3]
        except DataError as error:
            return f"<p>Ramps can't be shown: {html.escape(str(error))}</p>"
        drawn = "".join(charts.draw_ramp(r, f"{flag} pixel ({x}, {y}), {r.label}") for r in ramps)
        levels = say_levels(ramps)
        sentences = explain.explain(mask, evidence, x, y).sentences
        sentence = next((t.split("): ", 1)[-1] for t in sentences if t.startswith(f"{flag} (")), "")
        slopes = ", ".join(f"{r.slope:.4g}" for r in ramps)
        caption = (
            f"<strong>{flag}</strong> pixel ({x}, {y}): {html.escape(sentence)} Slopes: {slopes} {ramps[0].unit}."
            f"{' ' + html.escape(levels) if levels else ''}"
        )
        out += f'<figure class="ramps"><div>{drawn}</div><figcaption>{caption}</figcaption></figure>'
    key = (
        '<p class="key">Circles: signal; triangles: jumps; squares: saturated groups; line: fit with one slope and a '
        "level for each stretch between jumps.</p>"
    )
    return key + out


# --- texts of the file -----------------------------------------------------------------------------------


def parameters_table(mask: Mask) -> str:
    """Parameters of the searches, from HISTORY."""
    pattern = re.compile(r"^(?:Input history: )?(\w+)\.(\w+) = (.*?)(?: \[(\w+)\])?: (.*)$")
    found = [m.groups() for m in map(pattern.match, join_history(mask.history)) if m]
    if not found:
        return "<p>The mask does not say.</p>"
    rows = [[section, name, value, meaning] for section, name, value, _, meaning in found]
    return table(["Command", "Parameter", "Value", "Meaning"], rows, "parameters")


def inputs_block(mask: Mask) -> str:
    """Files that the mask was made from, and those that were rejected with the reason."""
    rows: list[list[Any]] = []
    inside = False
    for line in join_history(mask.history):
        if any(line.startswith(topic) for topic in TOPICS):
            inside = line.startswith("DATA USED:")
            first = line.removeprefix("DATA USED:").strip() if inside else ""
            if first:
                rows.append([first, "used", ""])
            continue
        text = line.strip()
        if not inside or not line.startswith(("  ", "sha256 ")):
            continue
        if text.startswith("rejected:"):
            name, _, why = text.removeprefix("rejected:").strip().partition(":")
            rows.append([name, "rejected", why.strip()])
        elif text.startswith("sha256") and rows:
            rows[-1][2] = Markup(f"<code>{html.escape(text.split()[-1][:16])}…</code>")
        else:
            rows.append([text, "used", ""])
    return table(["File", "", "sha256, or the reason"], rows, "inputs") if rows else "<p>The mask does not say.</p>"


def history_block(mask: Mask) -> str:
    """The whole HISTORY, as it stands in the file."""
    return f"<pre>{html.escape(chr(10).join(join_history(mask.history)))}</pre>"


def glossary(mask: Mask) -> str:
    """The flags that a mask may carry, in words; those of this mask first."""
    used = int(np.bitwise_or.reduce(mask.image, axis=None))
    rows = [
        [f.name, f"{f.bit}", f"{f.value:,}", f.description, "yes" if used & f.value else ""]
        for f in sorted(dq.FLAGS, key=lambda f: not used & f.value)
        if f.use == "mask" or used & f.value
    ]
    return table(["Flag", "Bit", "Value", "Meaning", "In this mask"], rows)
