"""The rooms of the search in darks; :mod:`badpix.darks` is its driver."""
