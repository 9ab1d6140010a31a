"""Puts the scripts of the studies where the tests import them from."""

import sys

from helpers.places import ROOT

sys.path[:0] = [str(folder) for folder in (ROOT / "studies").iterdir() if folder.is_dir()]
