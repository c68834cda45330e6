"""The rooms of the search in IFU exposures; :mod:`badpix.outlier_ifu` is its driver."""
