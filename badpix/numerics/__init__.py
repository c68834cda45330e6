"""Numeric kernels: clipping, medians, smoothing, neighbors. Arrays in, arrays out; numpy and scipy alone."""
