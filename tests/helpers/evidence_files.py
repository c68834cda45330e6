"""Evidence of a small mask, with values of which each search finds a few, and a jump file beside it."""

import numpy as np
from astropy.io import fits

from badpix.io.evidence import Evidence, Rule, Samples

FLAGS = [
    (20, 10, "HOT+DO_NOT_USE"),
    (21, 10, "HOT+DO_NOT_USE"),
    (22, 10, "LOW_QE"),
    (23, 10, "RC+DO_NOT_USE"),
    (24, 10, "OPEN+DO_NOT_USE"),
    (25, 10, "DO_NOT_USE"),
    (0, 5, "BAD_REF_PIXEL+DO_NOT_USE"),
    (26, 10, "HOT+DO_NOT_USE"),
]


def make_evidence(shape=(64, 72)):
    """HOT above 1 DN/s; OPEN by two rules of one way; RC by one of two ways; LOW_QE below 0.5."""
    rate, response, excess, shape_score, pedestal = (np.zeros(shape, np.float32) for _ in range(5))
    rate[10, 20], rate[10, 21], rate[10, 26] = 5.0, 50.0, 7.0
    response[:] = 1.0
    response[10, 22], response[10, 24] = 0.3, 0.2
    excess[10, 24] = 0.1
    limit = np.full(shape, 0.05, np.float32)
    shape_score[10, 23] = 12.0
    pedestal[10, 40] = np.nan
    rules = [
        Rule("hot", "dark_rate", ">", 1.0, "DN/s", "too bright"),
        Rule("LOW_QE", "response", "<", 0.5, "of the surroundings", "too faint"),
        Rule("OPEN", "response", "<", 0.5, "of the surroundings", "too faint"),
        Rule("OPEN", "excess", ">", "excess_limit", "", "neighbors too bright"),
        Rule("rc", "shape_score", ">", 5.0, "sigma", "bent", 1),
        Rule("rc", "pedestal", ">", 100.0, "DN", "high pedestal", 2),
        Rule("DEAD", "response", "<", 0.05, "", "no response"),
    ]
    maps = {"hot": rate > 1, "low_qe": (response < 0.5) & (excess == 0), "open": excess > 0, "rc": shape_score > 5}
    maps["dead"] = np.zeros(shape, bool)
    maps["dead"][10, 20] = True  # hot wins
    maps["hot"][10, 26] = False  # flagged by hand
    images = {
        "dark_rate": rate,
        "response": response,
        "excess": excess,
        "excess_limit": limit,
        "shape_score": shape_score,
        "pedestal": pedestal,
    }
    images |= {f"is_{name}": found.astype(np.uint8) for name, found in maps.items()}
    x, y = np.array([20, 21], np.int32), np.array([10, 10], np.int32)
    samples = Samples(x, y, np.array([[5, 4, 0.5, 6], [50, 51, 52, 53]], np.float32))
    return Evidence(images, rules, {"dark_rate": samples})


def write_jump(path, nints=2, ngroups=8):
    """A jump file of the subarray: slope 3 DN a group, a jump of 100 DN at group 4, saturated from group 7 on."""
    signal = np.zeros((nints, ngroups, 64, 72), np.float32)
    signal[..., 10, 21] = 50 + 3 * np.arange(ngroups) + 100 * (np.arange(ngroups) >= 4)
    flags = np.zeros(signal.shape, np.uint8)
    flags[:, 4, 10, 21], flags[:, 7, 10, 21] = 4, 2
    signal[:, 7, 10, 21] = 999
    header = fits.Header(
        {
            "INSTRUME": "MIRI",
            "DETECTOR": "MIRIMAGE",
            "SUBARRAY": "SUB64",
            "SUBSTRT1": 1,
            "SUBSTRT2": 779,
            "SUBSIZE1": 72,
            "SUBSIZE2": 64,
            "TGROUP": 2.0,
        }
    )
    hdus = [fits.PrimaryHDU(header=header), fits.ImageHDU(signal, name="SCI"), fits.ImageHDU(flags, name="GROUPDQ")]
    fits.HDUList(hdus).writeto(path)
    return path
