"""Entry point of `bench` and `python -m bench`: a process that runs one command."""

import atexit
import gc
import os
import sys
from contextlib import suppress

from bench import interrupts


def main() -> None:
    """Run the command line, handling Ctrl-C and SIGTERM from the start."""
    code: str | int | None = 1
    process = os.getpid()

    def end() -> None:
        """End the process at once: clearing the modules of torch takes half a second.

        With other plugins it ends as usual, because they may have files open that must be written.
        """
        loading = sys.modules.get("bench.discovery.loading")
        if loading is not None and loading.loaded_others():
            return
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):  # the reader has exited
                stream.flush()
        if os.getpid() == process:  # not in a child that was forked
            os._exit(code if isinstance(code, int) else code is not None)

    # Registered first, so that it runs last: after threads have ended and libraries have tidied up.
    atexit.register(end)
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
