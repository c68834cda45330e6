"""Declarations of the parameters, one section a module; read through :mod:`badpix.params`."""
