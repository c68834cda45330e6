"""Exposures with known defects, and how good a result is against their truth."""
