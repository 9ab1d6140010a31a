"""Where things are."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
UCMERCED = Path(os.environ.get("BENCH_TEST_UCMERCED", ROOT.parent / "shared/data/ucmerced"))
CALTECH101 = Path(os.environ.get("BENCH_TEST_CALTECH101", ROOT.parent / "shared/data/caltech101"))
