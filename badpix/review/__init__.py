"""Masks that can be trusted: checked, explained, compared, reported, exported."""
