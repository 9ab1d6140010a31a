"""Tests that are valid at every number of images, and the rules by which a run stops."""
