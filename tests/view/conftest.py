"""The images of stored runs are read in this process."""

from helpers.opened_here import opened_here as opened_here
