"""The command in a process of its own that is forked from one that has imported torch.

Importing torch, diffusers and transformers costs more than most commands do afterwards. What a
process is at its start (its imports, its variables) is not tested so: see `helpers.command`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

from helpers.command import PATIENCE, Finished

IMPORTED = [
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "datasets",
    "sklearn.metrics",
    "matplotlib.figure",
    "bench.cli.main",
]


def bench_forked(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> Finished:
    """Run the command in `folder`, with `PYTHONPATH` in front of what Python searches."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        process = _server().Process(
            target=_run, args=(arguments, folder, dict(environment), out, err)
        )
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"bench {' '.join(arguments)} takes more than {PATIENCE:.0f} s")
        return Finished(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


@cache
def _server() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _run(
    arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path
) -> None:
    from bench.cli.main import main

    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["bench", *arguments]
    main()
