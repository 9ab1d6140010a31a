"""The command in a process of its own, which a signal may stop.

A process that imports torch and diffusers takes ten seconds of work to start. These are forked from
one that has imported them already and done nothing else: no plugin is loaded in it.
"""

import multiprocessing
import os
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
        "bench.reports.figures.run_pictures",
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
        kill_after: int = 0,
        changes: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start it. With `kill_after`, it is killed when so many images are decided.

        `changes` are variables of its environment; one that is None is unset. It runs in `folder`,
        or where the tests do.
        """
        self._output = tempfile.TemporaryDirectory()
        streams = [str(Path(self._output.name, name)) for name in ("out", "err")]
        wanted = {**TERMINAL, **os.environ, **(changes or {})}
        variables = {name: value for name, value in wanted.items() if value is not None}
        inputs = (arguments, variables, folder or Path.cwd(), streams, kill_after)
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
    return Running(arguments, images).end()


def _command(
    arguments: list[str],
    variables: dict[str, str],
    folder: Path,
    streams: list[str],
    kill_after: int,
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

    if kill_after:
        _kill_after(kill_after)
    main()


def _kill_after(images: int) -> None:
    """Kill this process when so many records are in the journal, at the event of the last."""
    from bench import hookimpl
    from bench.discovery.loading import load_plugins

    class Stop:
        decided = 0

        @hookimpl
        def sample_scored(self, record: object) -> None:
            self.decided += 1
            if self.decided == images:
                os.kill(os.getpid(), signal.SIGKILL)

    load_plugins().manager.register(Stop())
