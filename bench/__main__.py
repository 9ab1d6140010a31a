"""Entry point of `bench` and `python -m bench`: a process that runs one command."""

import gc
import os
import sys
from contextlib import suppress

from bench import interrupts


def main() -> None:
    """Run the command line, handling Ctrl-C and SIGTERM from the start."""
    code: str | int | None = 1
    interrupts.listen()
    _open_descriptors()
    # By default, looking for garbage takes a second of a run that loads torch and diffusers.
    gc.set_threshold(50_000)
    from bench.cli.main import main as run

    try:
        interrupts.begin_work()
        run()
    except SystemExit as stopped:
        code = stopped.code
    except KeyboardInterrupt:  # a second one, while the first was being handled
        code = interrupts.exit_code()
    interrupts.end_work()
    _leave_stdout()
    sys.exit(code)


def _open_descriptors() -> None:
    """Open the null device for standard streams that the shell closed (`2>&-`).

    Otherwise the next file that is opened would get the descriptor, and receive the output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _leave_stdout() -> None:
    """Redirect stdout to stderr for what plugins and libraries print at exit."""
    with suppress(OSError):  # the reader has exited
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(2, 1)


if __name__ == "__main__":
    main()
