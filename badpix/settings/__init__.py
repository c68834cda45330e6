"""Parameters: how they are declared, checked, read and rendered, and their declarations, one section a module."""

SECTIONS = (
    "check",
    "darks",
    "flats",
    "ifu",
    "image",
    "merge",
    "prepare",
    "rebuild",
    "reference",
    "science",
    "simulate",
    "simulate_science",
)
