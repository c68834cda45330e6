"""Parameters of ``outlier image``.

The first groups carry the documented names and default values. What the default search does beyond the
documented rule is named in the later groups; in the ``documented`` set each of these stands at the value that
changes nothing."""

from badpix.settings.param import Param, Section

RULE, DRIZZLE, RUN, MODEL, TEST, CARE, AUDIT = (
    "Documented rule",
    "Documented resampling",
    "Documented run options",
    "Model of the sky",
    "Noise and test",
    "Sources, trails, single coverage",
    "Audit",
)

SECTION = Section(
    name="image",
    title="outlier image: cosmic rays and blemishes in dithered images",
    params=(
        Param(
            "snr",
            (5.0, 4.0),
            "Noise limits of the first pass and of the pass on neighbours, exceeded strictly; the better test "
            "multiplies them with snr_factor.",
            "pair_float",
            unit="sigma",
            low=0.0,
            group=RULE,
        ),
        Param(
            "scale",
            (1.2, 0.7),
            "Fractions of the model's local derivative that a difference must exceed in the two passes; the "
            "better test multiplies them with scale_factor.",
            "pair_float",
            low=0.0,
            group=RULE,
        ),
        Param(
            "backg",
            0.0,
            "Background added to the model where no keyword of the exposure names one (documented test only).",
            unit="data units",
            group=RULE,
        ),
        Param("maskpt", 0.7, "Mosaic pixels below this fraction of the clipped mean weight are no data.", low=0.0,
              high=1.0, group=RULE),
        Param(
            "resample_data",
            True,
            "Resample onto a common grid; false compares undithered images of one shape directly (one pass).",
            "bool",
            group=DRIZZLE,
        ),
        Param("weight_type", "ivm", "Weights: inverse read-noise variance, or exposure time.", "choice",
              choices=("ivm", "exptime"), group=DRIZZLE),
        Param("kernel", "square", "Drizzle kernel.", "choice", choices=("square", "point", "turbo"), group=DRIZZLE),
        Param("pixfrac", 1.0, "Fraction to which input pixels are shrunk.", low=0.0, high=1.0, group=DRIZZLE),
        Param("fillval", "NAN", "Value of mosaic pixels without data: NAN, INDEF or a number.", "str",
              group=DRIZZLE),
        Param(
            "good_bits",
            "~DO_NOT_USE",
            "DQ flags that don't rule a pixel out; ~ inverts; 0 = every flag rules out; none = DQ is not used.",
            "str",
            optional=True,
            group=DRIZZLE,
        ),
        Param("pixmap_stepsize", 1.0, "Spacing of the pixel map's nodes; 1 = exact to 1e-6 pixel.", unit="pixels",
              low=1.0, group=DRIZZLE),
        Param("pixmap_order", 1, "Order of the spline through the nodes, 1 or 3, where the spacing is above 1.",
              "int", low=1, high=3, group=DRIZZLE),
        Param("save_intermediate_results", False, "Also write _outlier_i2d, _median and _blot files.", "bool",
              group=RUN),
        Param(
            "in_memory",
            True,
            "Accepted as documented; exposures are always streamed, and the results are the same.",
            "bool",
            group=RUN,
        ),
        Param("reference", "others", "Compare an exposure with the median of the other groups, or of all.",
              "choice", choices=("others", "all"), documented="all", group=MODEL),
        Param(
            "reference_noise",
            2.0,
            "A group whose median ERR exceeds this many times the median over the groups is no reference for the "
            "others (reference others, more than two groups); it is searched itself. none = all are.",
            low=1.0,
            optional=True,
            documented=None,
            group=MODEL,
        ),
        Param("agree_sigma", 3.0, "The two middle values of the others agree within this many sigma ...",
              unit="sigma", low=0.0, group=MODEL),
        Param("agree_gradient", 0.7, "... plus this fraction of the local derivative; else the lower one counts.",
              low=0.0, group=MODEL),
        Param("blot_interp", "poly3", "Interpolation of the model at the pixels of an exposure.", "choice",
              choices=("linear", "poly3", "poly5"), documented="linear", group=MODEL),
        Param("sharpen", True, "Undo the blur of drizzle by a kernel learned in each exposure.", "bool",
              documented=False, group=MODEL),
        Param("sharpen_size", 5, "Width of that kernel; odd.", "int", unit="pixels", low=3, high=9, group=MODEL),
        Param(
            "sky_match",
            "auto",
            "Measure the sky differences of overlapping exposures: where a member lacks BKGLEVEL, always, never.",
            "choice",
            choices=("auto", "always", "never"),
            documented="never",
            group=MODEL,
        ),
        Param("test", "significance", "The better test, or the documented rule.", "choice",
              choices=("significance", "documented"), documented="documented", group=TEST),
        Param(
            "noise",
            "expected",
            "Noise of a difference: ERR; the model's; both; or what the pixel would have without the hit, and "
            "the model's.",
            "choice",
            choices=("exposure", "median", "both", "expected"),
            documented="exposure",
            group=TEST,
        ),
        Param("snr_factor", (0.9, 0.75), "Factors on snr in the better test.", "pair_float", low=0.0, group=TEST),
        Param("scale_factor", (0.5, 0.57), "Factors on scale in the better test.", "pair_float", low=0.0,
              group=TEST),
        Param("snr_dark", 6.0, "Noise limit of pixels that are too faint; 0 = not looked for.", unit="sigma",
              low=0.0, group=TEST),
        Param(
            "conserve",
            0.8,
            "On steep pixels the excess must survive in the sum over 3x3 by this fraction: a hit adds, another "
            "sub-pixel phase only moves flux.",
            low=0.0,
            group=CARE,
        ),
        Param("protect_sources", 0.9, "Guard of source cores: derivatives that a flag must exceed; 0 = off.",
              low=0.0, group=CARE),
        Param(
            "stand_out",
            2.5,
            "On steep pixels a flag without company must exceed this many times the largest difference, in local "
            "derivatives, of the unflagged steep pixels in 7x7; 0 = off.",
            low=0.0,
            group=CARE,
        ),
        Param("trail_snr", 8.0, "Limit of a line of 9 pixels in the search for trails; 0 = off.", unit="sigma",
              low=0.0, documented=0.0, group=CARE),
        Param("single_coverage", "sharpness", "Test where no other exposure looked: sharper than any star, or none.",
              "choice", choices=("sharpness", "none"), documented="none", group=CARE),
        Param("audit", True, "List the sources that lost flux to flags.", "bool", documented=False, group=AUDIT),
        Param("audit_snr", 10.0, "Sources of the median image above this many times its noise are audited.",
              unit="sigma", low=1.0, group=AUDIT),
        Param("audit_loss", 0.01, "Loss of flux above which a source is listed.", low=0.0, high=1.0, group=AUDIT),
    ),
)  # fmt: skip
