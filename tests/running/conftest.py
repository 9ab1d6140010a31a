"""Runs of the digits cost nothing here, and their images are read in this process."""

from helpers.opened_here import opened_here as opened_here
from helpers.sketch import sketched as sketched
