"""Our own denoisers keep the contract that authors' denoisers keep."""

from __future__ import annotations

import bench as toolkit
from bench.testing import DenoiserContract


class TestTinyDigits(DenoiserContract):
    texts = ("one", "two", "a handwritten digit seven")

    def make(self) -> object:
        return toolkit.load_backbone("tiny-digits", device="cpu")
