"""The command in a process of its own, which a signal or a limit of the kernel may stop.

A process that imports torch and diffusers takes ten seconds of work to start. These are forked from
one that has imported them already and done nothing else: no plugin is loaded in it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from helpers.command import PATIENCE, TERMINAL, Finished

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "bench.cli.main",
        "bench.cli.run",
        "bench.reports.figures.pictures",
        "bench.running.lifecycle",
        "bench_plugins.backbones.families",
        "datasets",
        "diffusers",
        "matplotlib.figure",
        "sklearn.datasets",
        "torch._dynamo",
        "transformers",
    ]
)


class Running:
    """One command that runs."""

    def __init__(
        self,
        arguments: list[str],
        images: int = 0,
        beyond: int = 0,
        how: str = "",
        changes: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start it. The arguments are those of `limited`; without `how` nothing stops it.

        `changes` are variables of its environment; one that is None is unset. It runs in `folder`,
        or where the tests do.
        """
        self._output = tempfile.TemporaryDirectory()
        streams = [str(Path(self._output.name, name)) for name in ("out", "err")]
        wanted = {**TERMINAL, **os.environ, **(changes or {})}
        variables = {name: value for name, value in wanted.items() if value is not None}
        inputs = (arguments, variables, folder or Path.cwd(), streams, images, beyond, how)
        self.process = FORKS.Process(target=_command, args=inputs)
        self.process.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return not self.process.is_alive()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> Finished:
        """Wait for its end."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "it hangs"
        out, err = (Path(self._output.name, name).read_text() for name in ("out", "err"))
        self._output.cleanup()
        return Finished(self.process.exitcode, out, err)


def forked(*arguments: object, folder: Path | None = None, **variables: str | None) -> Finished:
    """Run the command to its end, as `bench_process` does but for the imports."""
    return Running([*map(str, arguments)], changes=variables, folder=folder).end()


def killed(arguments: list[str], images: int) -> Finished:
    """Kill the run when so many images are decided."""
    return Running(arguments, images, 0, "SIGKILL").end()


def limited(arguments: list[str], images: int, beyond: int, how: str) -> Finished:
    """Run with a limit to the size of files, that strikes in the middle of a write.

    Beyond it the kernel takes a part of the bytes. Then it kills the process ("SIGXFSZ"), or, where
    the signal is ignored as Python does ("refuse"), it refuses the rest as a full disk does.

    Args:
        arguments: of the command.
        images: decided before the limit is set.
        beyond: bytes that `samples.jsonl` may still grow by.
        how: "SIGXFSZ" or "refuse".
    """
    return Running(arguments, images, beyond, how).end()


def _command(
    arguments: list[str],
    variables: dict[str, str],
    folder: Path,
    streams: list[str],
    images: int,
    beyond: int,
    how: str,
) -> None:
    """Be that process: one command, from its first moment to its exit code."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for descriptor, path in enumerate(streams, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
    sys.argv = ["bench", *arguments]
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    from bench.__main__ import main

    if how:
        _stop_after(images, beyond, how)
    main()


def _stop_after(images: int, beyond: int, how: str) -> None:
    """Stop when the record of the n-th image is in the journal: its event comes then."""
    from bench import hookimpl
    from bench.discovery.loading import load_plugins

    class Stop:
        decided = 0

        @hookimpl
        def sample_scored(self, record: object) -> None:
            self.decided += 1
            if self.decided == images:
                if how == "SIGKILL":
                    os.kill(os.getpid(), signal.SIGKILL)
                results = Path(sys.argv[sys.argv.index("--results") + 1])
                [journal] = results.rglob("samples.jsonl")
                size = journal.stat().st_size + beyond
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    if how == "SIGXFSZ":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    load_plugins().manager.register(Stop())
