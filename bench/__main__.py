"""Entry point of `bench` and `python -m bench`: a process that runs one command."""

import gc
import os
import sys

from bench import interrupts


def main() -> None:
    """Run the command line, handling Ctrl-C and SIGTERM from the start."""
    interrupts.listen()
    _open_descriptors()
    # By default, looking for garbage takes a second of a run that loads torch and diffusers.
    gc.set_threshold(50_000)
    sys.meta_path.insert(0, _BeforeTriton())
    from bench.cli.main import main as run

    code: str | int | None = 1
    try:
        interrupts.begin_work()
        run()
    except SystemExit as stopped:
        code = stopped.code
    except KeyboardInterrupt:  # a second one, while the first was being handled
        code = interrupts.exit_code()
    interrupts.end_work()
    _leave_stdout()
    gc.disable()  # Python collects garbage when it clears all modules anyway
    sys.exit(code)


class _BeforeTriton:
    """A finder that finds no module: when triton is looked for, it freezes all objects so far.

    They are those of torch, mostly, and stay to the end. Later ones are not frozen, because
    nanobind would report those of triton as leaked.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "triton":
            gc.freeze()


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
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(2, 1)
    except OSError:  # the reader has exited
        pass


if __name__ == "__main__":
    main()
