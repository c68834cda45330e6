"""The rooms of the search in dithered images; :mod:`badpix.outlier_image` is its driver."""
