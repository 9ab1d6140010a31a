"""Runs of the digits cost nothing here."""

from helpers.sketch import sketched as sketched
