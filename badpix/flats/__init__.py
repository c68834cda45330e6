"""The rooms of the search in flats; :mod:`badpix.flats.search` is its driver."""
