"""Runs in processes of their own that something stops once so many images are decided."""

from __future__ import annotations

from helpers.command import Finished, python

# The n-th image's record is in the journal when its event comes.
STOPPED = """
import os, resource, signal, sys
from pathlib import Path
from bench import hookimpl
from bench.cli.main import main
from bench.discovery.loading import load_plugins

images, beyond, how = int(sys.argv.pop(1)), int(sys.argv.pop(1)), sys.argv.pop(1)

class Stop:
    decided = 0
    @hookimpl
    def sample_scored(self, record):
        self.decided += 1
        if self.decided == images:
            if how in ("SIGKILL", "SIGINT"):
                os.kill(os.getpid(), getattr(signal, how))
            [journal] = Path(sys.argv[sys.argv.index("--results") + 1]).rglob("samples.jsonl")
            size = journal.stat().st_size + beyond
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

if how == "SIGXFSZ":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
load_plugins().manager.register(Stop())
main()
"""


def killed(arguments: list[str], images: int) -> Finished:
    """Kill the run when so many images are decided."""
    return python(STOPPED, images, 0, "SIGKILL", *arguments)


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
    return python(STOPPED, images, beyond, how, *arguments)
