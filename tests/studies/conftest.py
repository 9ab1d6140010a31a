"""Puts the scripts of the study of draws where the tests import them from."""

import sys

from helpers.places import ROOT

sys.path.insert(0, str(ROOT / "studies" / "how-many-draws"))
