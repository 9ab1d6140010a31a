"""Figures of reports, and pictures of the images of a run."""
