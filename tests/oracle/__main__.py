"""Draw cases, each route in turn, and print what is wrong with their runs.

The case of a route and a seed is the same every time: `--route hub --seed 17` repeats it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# As in tests/conftest.py: before torch and the Hub's clients are imported.
os.environ |= {"BENCH_LOAD_PLUGINS": "", "HF_HUB_OFFLINE": "1", "GOMP_SPINCOUNT": "10000"}
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> int:
    """Return 1 if a case found something, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m oracle", description=__doc__)
    parser.add_argument("count", type=int, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--route", action="append", help="draw this route alone; repeat for more")
    options = parser.parse_args()

    from oracle.cases import draw
    from oracle.comparison import Comparison
    from oracle.routes import ROUTES, SLOW_ROUTES
    from oracle.session import Session

    names, routes = options.route or list(ROUTES), {**ROUTES, **SLOW_ROUTES}
    count, wrong, seconds = Counter[str](), Counter[str](), dict.fromkeys(names, 0.0)
    with tempfile.TemporaryDirectory() as root:
        os.environ["HF_DATASETS_CACHE"] = f"{root}/datasets"
        comparison = Comparison(Session(Path(root)))
        for seed in range(options.seed, options.seed + options.count):
            name = names[seed % len(names)]
            case, began = draw(seed, name, routes[name].terms), time.perf_counter()
            found = comparison.check(case, routes[name].go)
            count[name] += 1
            seconds[name] += time.perf_counter() - began
            wrong[name] += bool(found)
            if found:
                again = f'python -m oracle 1 --route "{name}" --seed {seed}'
                print("\n  ".join([f"WRONG {case}", *found, again]), flush=True)
    for name in names:
        print(f"{name}: {count[name]} cases, {wrong[name]} wrong, {seconds[name]:.0f} s")
    return min(1, wrong.total())


if __name__ == "__main__":
    sys.exit(main())
