"""The JWST data-quality flags, one line a bit.

The table is that of the JWST pipeline's pixel flags (32 bits). Everything that needs a flag's name, value or
meaning takes it from here: DQ_DEF tables, manual lists, reports, checks.

``use`` says where a flag belongs: ``mask`` (a property of the detector: belongs into a MASK), ``exposure`` (a
property of one exposure: never in a MASK), ``other`` (set by another kind of reference file), ``never`` (retired).
"""

from typing import NamedTuple


class Flag(NamedTuple):
    """One DQ bit."""

    bit: int
    name: str
    use: str
    description: str

    @property
    def value(self) -> int:
        """The flag as an integer, ``2**bit``."""
        return 1 << self.bit


FLAGS: tuple[Flag, ...] = (
    Flag(0, "DO_NOT_USE", "mask", "Bad pixel, not to be used for science"),
    Flag(1, "SATURATED", "exposure", "Pixel saturated during the exposure"),
    Flag(2, "JUMP_DET", "exposure", "Jump detected during the exposure"),
    Flag(3, "DROPOUT", "exposure", "Data lost in transmission"),
    Flag(4, "OUTLIER", "exposure", "Flagged by outlier detection"),
    Flag(5, "PERSISTENCE", "exposure", "High persistence"),
    Flag(6, "AD_FLOOR", "exposure", "At or below the A/D floor"),
    Flag(7, "CHARGELOSS", "exposure", "Charge migration"),
    Flag(8, "RESERVED", "never", "Retired"),
    Flag(9, "NON_SCIENCE", "mask", "Pixel not on the science portion of the detector"),
    Flag(10, "DEAD", "mask", "Dead pixel: no response to light"),
    Flag(11, "HOT", "mask", "Hot pixel: excessive dark current"),
    Flag(12, "WARM", "mask", "Warm pixel: raised dark current"),
    Flag(13, "LOW_QE", "mask", "Low quantum efficiency"),
    Flag(14, "RC", "mask", "RC or inverse RC pixel: settles at the start of the ramp"),
    Flag(15, "TELEGRAPH", "mask", "Telegraph pixel: switches between levels"),
    Flag(16, "NONLINEAR", "mask", "Highly non-linear"),
    Flag(17, "BAD_REF_PIXEL", "mask", "Reference pixel that cannot be used"),
    Flag(18, "NO_FLAT_FIELD", "other", "Flat field cannot be measured"),
    Flag(19, "NO_GAIN_VALUE", "other", "Gain cannot be measured"),
    Flag(20, "NO_LIN_CORR", "other", "Linearity correction not available"),
    Flag(21, "NO_SAT_CHECK", "other", "Saturation check not available"),
    Flag(22, "UNRELIABLE_BIAS", "mask", "Bias variance large"),
    Flag(23, "UNRELIABLE_DARK", "mask", "Dark variance large"),
    Flag(24, "UNRELIABLE_SLOPE", "mask", "Slope variance large: noisy pixel"),
    Flag(25, "UNRELIABLE_FLAT", "other", "Flat variance large"),
    Flag(26, "OPEN", "mask", "Open pixel: its charge moves to the neighbors"),
    Flag(27, "ADJ_OPEN", "mask", "Adjacent to an open pixel"),
    Flag(28, "FLUX_ESTIMATED", "exposure", "Flux estimated from other pixels"),
    Flag(29, "MSA_FAILED_OPEN", "exposure", "Sees light from a failed-open shutter"),
    Flag(30, "OTHER_BAD_PIXEL", "mask", "Bad pixel of another kind, low pedestal among them"),
    Flag(31, "REFERENCE_PIXEL", "mask", "Reference pixel"),
)

BY_NAME: dict[str, Flag] = {flag.name: flag for flag in FLAGS}
VALUE: dict[str, int] = {flag.name: flag.value for flag in FLAGS}
MASK_NAMES: tuple[str, ...] = tuple(flag.name for flag in FLAGS if flag.use == "mask")

# Flags whose pixels should not be used, unless a parameter says otherwise.
UNUSABLE: tuple[str, ...] = (
    "DEAD",
    "HOT",
    "LOW_QE",
    "OPEN",
    "ADJ_OPEN",
    "RC",
    "TELEGRAPH",
    "UNRELIABLE_SLOPE",
    "OTHER_BAD_PIXEL",
)

# Names met in old texts and lists, and what to write instead.
REPLACED: dict[str, str] = {
    "NOISY": "UNRELIABLE_SLOPE",
    "LOW_PEDESTAL": "OTHER_BAD_PIXEL",
    "HIGH_CR": "TELEGRAPH",
    "IRC": "RC",
    "ADJACENT_TO_OPEN": "ADJ_OPEN",
    "ADJACENT TO OPEN": "ADJ_OPEN",
    "LOW QE": "LOW_QE",
}


def names(value: int) -> list[str]:
    """Mnemonics of all bits set in ``value``, lowest bit first."""
    return [flag.name for flag in FLAGS if int(value) & flag.value]


def suggest(name: str) -> str:
    """What to write instead of the unknown mnemonic ``name``, as the end of an error message."""
    from difflib import get_close_matches

    wanted = name.strip().upper()[:40]
    near = [REPLACED[wanted]] if wanted in REPLACED else get_close_matches(wanted, VALUE, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(VALUE)}"
