"""Files at the edge: FITS rows and headers, exposures, associations, evidence, provenance, outputs, workers."""
