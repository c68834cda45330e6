"""Bad pixels from science exposures."""
