"""Intervals and tests of shares, of metrics of classes, and of differences on the same images."""
