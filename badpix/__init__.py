"""badpix: bad-pixel masks and outlier flags for JWST detectors."""

__version__ = "0.1.0"
