"""The rooms of the search in IFU exposures; :mod:`badpix.ifu.driver` is its driver."""
