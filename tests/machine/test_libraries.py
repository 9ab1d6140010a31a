"""Libraries are imported when they are used."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np

from bench.machine.libraries import postponed


def test_a_part_of_scipy_is_imported_by_what_uses_it() -> None:
    for name in [name for name in sys.modules if name.startswith(("scipy.fftpack", "scipy.odr"))]:
        del sys.modules[name]
    with postponed({"scipy.fftpack": "fft", "scipy.odr": ""}):
        assert find_spec("scipy.odr") is not None
        import scipy.odr
        from scipy.fftpack import fft

        assert not {"scipy.fftpack._basic", "scipy.odr._odrpack"} & sys.modules.keys()
    assert not {"scipy.fftpack", "scipy.odr"} & sys.modules.keys()
    np.testing.assert_allclose(fft(np.ones(4)), [4, 0, 0, 0])
    assert scipy.odr.Model.__module__ == "scipy.odr._odrpack"
    with postponed({"scipy.fftpack": "fft"}):
        from scipy.fftpack import ifft

    np.testing.assert_allclose(ifft(fft(np.ones(4))), np.ones(4))


def test_another_name_of_a_postponed_part_imports_it() -> None:
    for name in [name for name in sys.modules if name.startswith("scipy.fftpack")]:
        del sys.modules[name]
    with postponed({"scipy.fftpack": "fft"}):
        from scipy.fftpack import dct
        from scipy.fftpack._basic import fft

        assert "scipy.fftpack._realtransforms" in sys.modules
    assert dct.__module__.startswith("scipy.fftpack")
    assert fft is sys.modules["scipy.fftpack"].fft
