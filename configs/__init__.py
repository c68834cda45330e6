"""Shipped YAML files: default parameters of each command, detector geometry, examples."""
