"""The rooms of the search in darks; :mod:`badpix.darks.search` is its driver."""
