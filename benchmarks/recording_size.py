"""What recorded errors take on disk and in memory, and what rounding them changes.

    python benchmarks/recording_size.py sizes RUN…       # bytes per cell, and decisions that differ
    python benchmarks/recording_size.py memory --gb 2    # peak memory of a replay of made-up errors

`sizes` exports each recording exactly and with `--error-bits`, and replays every setting of `bench
sweep` on all of them: how many decisions, and how many numbers of evaluations, differ from those on
the exact errors? `memory` makes an exported recording of 1,000 prompts and 500 draws and replays it
in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.runs import a_manifest

from bench.recordings.recording import open_recording
from bench.recordings.replay import decider_for, prepare_replay, replay_samples
from bench.recordings.sweep import default_grid
from bench.reports.error_dataset import Sharing, write_error_dataset
from bench.running.execute import execute
from bench.store.fields import to_json
from bench.store.packed import write_packed

BITS = (None, 12, 8)
PROMPTS, DRAWS = 1000, 500


def decisions(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return prediction and cost of each setting on each image, float64 [settings, images, 2]."""
    recording = open_recording(path)
    settings = default_grid(recording.n_draws)
    strategies = [decider_for(recording, name, params).strategy for name, params in settings]
    records = replay_samples(recording, recording.samples(), strategies)
    return np.array([[(r["prediction"], r["evaluations"]) for r in row] for row in records], float)


def sizes(runs: list[Path]) -> None:
    """Print the table of sizes."""
    print("| recording | errors | bytes per image | bytes per cell | of the parts | decisions that"
          " differ | costs that differ |\n|---|---|--:|--:|--:|--:|--:|")  # fmt: skip
    for run in runs:
        recording = open_recording(run)
        images = len(recording.records)
        cells = sum(int(np.prod(recording.shape(r["sample_id"]))) for r in recording.records)
        parts = sum(file.stat().st_size for file in (run / "errors").iterdir())
        exact = decisions(run)
        head = f"| {recording.manifest.backbone.name}, {images} images"
        print(
            f"{head} | one file per image | {parts / images:,.0f} | {parts / cells:.2f}"
            " | 100 % | | |"
        )
        for bits in BITS:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, "shared")
                write_error_dataset(run, out, Sharing(error_bits=bits))
                size = sum(file.stat().st_size for file in (out / "errors").iterdir())
                apart = (decisions(out) != exact).sum(axis=(0, 1))
            name = "exported" if bits is None else f"exported, {bits} bits"
            total = exact.shape[0] * exact.shape[1]
            print(
                f"{head} | {name} | {size / images:,.0f} | {size / cells:.2f} |"
                f" {100 * size / parts:.0f} % | {apart[0]} of {total:,} | {apart[1]} of {total:,} |"
            )


def memory(gigabytes: float) -> None:
    """Make a recording of so many gigabytes of float32, and print what a replay of it takes."""
    import pyarrow as pa

    images = round(gigabytes * 1e9 / (4 * PROMPTS * DRAWS))
    names = [f"image-{number}" for number in range(images)]
    prompt, draw = np.indices((PROMPTS, DRAWS), dtype=np.int32).reshape(2, -1)

    def tables() -> object:
        for number, name in enumerate(names):
            rng = np.random.default_rng(number)
            errors = 0.5 + 0.02 * rng.standard_normal(prompt.size, np.float32)
            errors[prompt == number % PROMPTS] -= np.float32(0.02)
            columns = {"prompt": prompt, "draw": draw, "timestep": 2 * draw + 1, "error": errors}
            yield name, pa.table({"sample_id": [name] * prompt.size, **columns})

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        run.mkdir()
        write_packed(run / "errors", tables())  # type: ignore[arg-type]  # an iterator of tables
        scoring = {"loss": "l2", "noise": "seed 0"}
        manifest = a_manifest(names, PROMPTS, seed=0, scoring=scoring, draws=DRAWS, run_id="run")
        (run / "manifest.json").write_text(to_json(manifest.plain()))
        cost = PROMPTS * DRAWS
        line = (
            '{{"sample_id": "{}", "label": {}, "prediction": 0, "score": 0.5, "margin": 0.1,'
            ' "margin_stderr": 0.1, "confidence": 0.5, "evaluations": {}, "top": [], "seconds": 0,'
            ' "error": null}}\n'
        )
        lines = [line.format(n, k % PROMPTS, cost) for k, n in enumerate(names)]
        (run / "samples.jsonl").write_text("".join(lines))
        size = sum(file.stat().st_size for file in (run / "errors").iterdir())
        print(f"{images:,} images, {cost:,} cells each: {size / 1e9:.2f} GB on disk", flush=True)
        subprocess.run([sys.executable, __file__, "replay", str(run)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["sizes", "memory", "replay"])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--gb", type=float, default=2.0, help="of float32")
    options = parser.parse_args()
    if options.what == "sizes":
        sizes(options.runs)
    elif options.what == "memory":
        memory(options.gb)
    else:
        with tempfile.TemporaryDirectory() as results:
            made = execute(prepare_replay(options.runs[0], "race", {}, Path(results)))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"replayed {made.summary.dataset.n_samples:,} images: peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
