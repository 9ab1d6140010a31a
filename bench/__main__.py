"""`bench`, and `python -m bench`: a process whose whole purpose is one command."""

from __future__ import annotations

import os
import sys

from bench import interrupts


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM are handled from the first moment on."""
    interrupts.listen()
    _open_descriptors()
    from bench.cli.main import main as run

    code: str | int | None = 1
    try:
        interrupts.begin_work()
        run()
    except SystemExit as stopped:
        code = stopped.code
    except KeyboardInterrupt:  # a second one, while the first was dealt with
        code = interrupts.exit_code()
    interrupts.end_work()
    _leave_stdout()
    sys.exit(code)


def _open_descriptors() -> None:
    """Give a standard stream that the shell closed (`2>&-`) a descriptor that leads nowhere.

    Otherwise the next file that is opened has its number, and prints end up there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _leave_stdout() -> None:
    """Send to stderr what plugins and libraries print while the process ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(2, 1)
    except OSError:  # nobody reads it
        pass


if __name__ == "__main__":
    main()
