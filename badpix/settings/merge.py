"""Parameters of ``badpix merge``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix import dq
from badpix.settings.param import FileName, Settings, param


@dataclass(frozen=True, kw_only=True)
class MergeSettings(Settings):
    """All parameters of ``badpix merge``."""

    section: ClassVar[str] = "merge"
    title: ClassVar[str] = "badpix merge: one MASK from masks and manual lists"
    heading: ClassVar[str] = "Merging"
    inputs: ClassVar[Mapping[str, str]] = {"masks": "masks to combine", "manual": "manual lists (x y flag)"}

    manual: list[FileName] = param([], "Manual lists (x y flag) that are added.")
    masks: list[FileName] = param([], "Masks to combine; those named on the command line take their place.")
    base: FileName | None = param(
        None,
        "Older mask that is brought up to date: new where the masks to combine measured, old where they did not.",
        keyword="BPMBASE",
    )
    policy: dict[str, list[str]] = param(
        {},
        "What becomes of a flag of base that is not seen again, by flag: replace (taken off at once), keep, or "
        "the number of updates in a row that it must be missing in. Flags that are not named: replace.",
    )
    faint_updates: int = param(
        3,
        "Updates in a row that a flag of base must be missing in where it was so faint that fewer than nine of "
        "ten like it would be seen again.",
        unit="updates",
        low=1,
        high=100,
        keyword="BPMFAINT",
    )
    one_based: bool = param(
        False, "Count x and y of manual lists from 1 (FITS, DS9) instead of 0.", keyword="BPMONEBS"
    )
    min_fraction: float = param(
        0.0,
        "Keep a flag that at least this fraction of the masks has (equality counts); 0 keeps every flag.",
        unit="of the masks",
        low=0.0,
        high=1.0,
        keyword="BPMMINFR",
    )
    prefer: Literal["all", "newest"] = param(
        "all",
        "Combine all masks (all), or take each pixel from the newest mask that holds it (newest).",
        keyword="BPMPREF",
    )
    hot_over_dead: bool = param(
        True,
        "Where HOT and DEAD meet, keep HOT: a pixel that is always saturated looks dead in flats.",
        keyword="BPMHOTDD",
    )
    embed: bool = param(
        False,
        "Place a subarray mask into the full frame; otherwise all masks must have one window.",
        keyword="BPMEMBED",
    )
    plain_flag: str = param(
        "OTHER_BAD_PIXEL",
        "Flag for the pixels of images that are no JWST masks (non-zero means bad).",
        keyword="BPMPLAIN",
    )
    force_plain: bool = param(
        False,
        "Take plain images in which half of the pixels or more are bad, or values are large.",
        keyword="BPMFORCE",
    )
    ignore_checksum: bool = param(
        False,
        "Use masks whose CHECKSUM or DATASUM is wrong: they were changed after they were written.",
        keyword="BPMIGSUM",
    )
    drop: list[str] = param([], "Flags of the inputs that are left out.", keyword="BPMDROP")
    do_not_use: list[str] = param(
        list(dq.UNUSABLE),
        "Flags that also get DO_NOT_USE when they come from a plain image; masks and manual lists say it "
        "themselves, unless manual_do_not_use is set.",
        keyword="BPMDONOT",
    )
    manual_do_not_use: bool = param(
        True, "Flags of manual lists that stand in do_not_use get DO_NOT_USE as well.", keyword="BPMMANDN"
    )
