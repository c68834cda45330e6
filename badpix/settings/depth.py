"""Parameters of the depth of a mask."""

from dataclasses import dataclass

from badpix.settings.param import Settings, param


@dataclass(frozen=True, kw_only=True)
class DepthSettings(Settings):
    """Depth"""

    depth: bool = param(
        False,
        "Measure what these exposures could have shown: defects of known strength are put into copies of good pixels "
        "and searched in the same run. The mask itself stays as it is.",
    )
    depth_pixels: int = param(
        14000,
        "Copies of pixels that defects are put into; fewer where the frame holds fewer.",
        unit="pixels",
        low=100,
        high=1000000,
    )
