"""Parameters of ``badpix prepare``."""

from badpix.settings.param import Param, Section

# Products that can be kept, in the order of the pipeline.
RAMPS = ("dq_init", "saturation", "superbias", "refpix", "refpix_nosides", "linearity", "dark_current", "jump")
PRODUCTS = ("uncal", *RAMPS, "rate", "rateints", "fitopt")

# Reference types that the first stage asks for, and what they hold.
REFERENCE_TYPES = {
    "mask": "the mask in use (dq_init)",
    "saturation": "saturation limits",
    "superbias": "superbias (near infrared)",
    "refpix": "interleaved reference pixels (NIRSpec IRS2)",
    "linearity": "linearity coefficients",
    "dark": "mean dark current",
    "reset": "reset anomaly (MIRI)",
    "rscd": "groups to leave out at the start (MIRI)",
    "emicorr": "electromagnetic interference (MIRI)",
    "ipc": "inter-pixel capacitance",
    "gain": "gain (jump, ramp_fit)",
    "readnoise": "read noise (jump, ramp_fit)",
}

_RESULT, _STEPS, _REFERENCES = "Result", "Steps", "Reference files"

SECTION = Section(
    name="prepare",
    title="badpix prepare: raw ramps through the pipeline's first stage",
    inputs={"raw": "raw ramps (_uncal)"},
    params=(
        Param("products", ["uncal", "rate", "rateints", "jump", "fitopt"],
              "Products to keep; uncal is a link to the raw file, refpix_nosides a second refpix run without side "
              "reference pixels.", "list", choices=PRODUCTS, group=_RESULT),
        Param("directory", None,
              "Folder for the products of raw exposures that `badpix rebuild` starts from, with a folder for each "
              "detector in it; none: beside the mask.", "path", optional=True, group=_RESULT),
        Param("fitopt_segments", 3,
              "Segments that fitopt keeps: the most broken ramp decides their number, and thirty fill a disk.",
              "int", low=1, optional=True, group=_RESULT),
        Param("known_flags", "clear",
              "Flags that the mask in use puts on science pixels: taken off after dq_init, so that every pixel gets "
              "a slope and is judged anew (clear), or left (keep): the pipeline fits no slope to a DO_NOT_USE pixel.",
              "choice", choices=("clear", "keep"), group=_STEPS),
        Param("subtract_dark", "flats",
              "Run dark_current on flats alone, never, or on darks as well, where it hides what they are to show.",
              "choice", choices=("flats", "never", "always"), group=_STEPS),
        Param("skip", [], "Steps to leave out.", "list", group=_STEPS),
        Param("steps", {},
              "Parameters of single steps by their names in the pipeline, laid over its defaults and those of CRDS.",
              "settings", group=_STEPS),
        Param("references", "auto",
              "Where reference files come from: CRDS (server or cache), the named ones alone (no server is asked; "
              "steps without theirs are skipped), or made from the simulation's own parameters; auto: simulation for "
              "simulated exposures, crds for others.",
              "choice", choices=("auto", "crds", "named", "simulation"), group=_REFERENCES),
        *(Param(f"override_{name}", None, f"Reference file for {text}.", "path", optional=True, group=_REFERENCES)
          for name, text in REFERENCE_TYPES.items()),
    ),
)  # fmt: skip
