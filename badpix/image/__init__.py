"""The rooms of the search in dithered images; :mod:`badpix.image.driver` is its driver."""
