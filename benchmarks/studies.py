"""Seconds that a study adds to each of its runs: what is not scoring, beyond the first run.

    python benchmarks/studies.py [CELLS] [BACKBONE]

A study of tiny runs on `digits`: a few images each, another seed each. The goal at 100 runs is
1.5 s per run beyond the first, which loads the backbone and imports what it needs.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.running.study.course import Step, run_study
from bench.running.study.file import read_study_file

FILE = """
datasets = ["digits"]
backbones = ["{backbone}"]
strategies = [{{name = "uniform", samples = 2}}]
seeds = {seeds}
limit = 4
pilot = 0

[params]
draws = 10
"""


def main(cells: int = 100, backbone: str = "tiny-digits") -> None:
    """Run the study, and print what its runs took beside their scoring."""
    steps: list[tuple[float, float, Step]] = []

    def tell(step: Step) -> None:
        if step.finished is None:
            raise SystemExit(f"{step.place}: {step.cell.error}")
        usage = resource.getrusage(resource.RUSAGE_SELF)
        steps.append((time.perf_counter(), usage.ru_utime + usage.ru_stime, step))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tiny.toml")
        file.write_text(FILE.format(backbone=backbone, seeds=list(range(cells))))
        started = time.perf_counter()
        run_study(read_study_file(file, {"results": folder}), Path(folder), tell)
        print(f"{cells} runs of 4 images: {time.perf_counter() - started:.1f} s")
        began = time.perf_counter()
        run_study(read_study_file(file, {"results": folder}), Path(folder))
        print(f"again, all stored already: {(time.perf_counter() - began) / cells:.2f} s per run")
    scoring = [step.finished.summary.cost.seconds or 0.0 for *_, step in steps if step.finished]
    wall, cpu = steps[-1][0] - steps[0][0], steps[-1][1] - steps[0][1]
    each = len(steps) - 1
    print(f"the first run: {steps[0][0] - started:.1f} s")
    print(
        f"each further run: {wall / each:.2f} s, of these {sum(scoring[1:]) / each:.2f} s scoring"
    )
    print(
        f"overhead per run: {(wall - sum(scoring[1:])) / each:.2f} s; CPU {cpu / each:.2f} s in all"
    )


if __name__ == "__main__":
    main(*(int(one) if one.isdecimal() else one for one in sys.argv[1:]))  # type: ignore[arg-type]  # the number comes first
