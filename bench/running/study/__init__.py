"""Studies: a grid of runs that one file declares, planned and made."""
