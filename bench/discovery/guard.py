"""Run plugin code so that its errors name the plugin and its output goes to stderr."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from io import UnsupportedOperation
from typing import Any, TextIO, TypeVar

import pluggy

from bench import interrupts
from bench.contracts.typed import mismatch
from bench.errors import PluginError, UserError, warn_user

T = TypeVar("T")
MAX_CHARACTERS = 300  # of a plugin's message


@contextmanager
def guard(
    who: str,
    doing: str,
    passing: tuple[type[BaseException], ...] = (UserError,),
    refuses: bool = False,
) -> Iterator[None]:
    """Run plugin code, and turn any exception into a `PluginError` that names the plugin `who`.

    This includes SystemExit, and KeyboardInterrupt unless the user caused it. `doing` is the call,
    such as `ask()`. Exceptions in `passing`, and `PluginError`, are raised unchanged. If the call
    `refuses` what the user chose with ValueError, this becomes a UserError.
    """
    passing = (PluginError, *passing)
    try:
        yield
    except passing:
        raise
    except BaseException as error:
        interrupts.check()  # the plugin may have replaced the user's interrupt by another error
        if interrupts.is_users(error):
            raise
        text = one_line(error)
        if isinstance(error, ValueError) and "read-only" in text:  # numpy's, about our arrays
            reason = "writes into its input"
        elif refuses and isinstance(error, ValueError):
            raise UserError(f"{who}: {text}.") from None
        elif isinstance(error, SystemExit):
            reason = f"tried to end the program (exit code {one_line(error.code)})"
        else:
            reason = f"raised {type(error).__name__}" + (f": {text}" if text else "")
        raise PluginError(who, f"{doing} {reason}") from error
    interrupts.check()


@contextmanager
def warning_guard(who: str, doing: str, then: str) -> Iterator[None]:
    """Run plugin code whose error is only a warning, which ends with the sentence `then`."""
    try:
        with guard(who, doing, passing=()):
            yield
    except PluginError as error:
        warn_user(f"{error}. {then}")


def checked_answer(who: str, what: str, kind: Any, ask: Callable[[], T]) -> T:
    """Return what `ask` gets of a plugin; raise PluginError unless it has the type `kind`.

    `what` is a method, such as `check()`, or an attribute. A number of numpy becomes Python's.
    """
    is_call = what.endswith("()")
    with guard(who, what if is_call else f"reading its {what}"):
        value: Any = ask()
        value = value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value
        wrong = mismatch(value, kind, f"what {what} returns" if is_call else f"its {what}")
    if wrong is not None:
        raise PluginError(who, wrong)
    answer: T = value
    return answer


def one_line(value: object) -> str:
    """Return the text of any object on one line of at most 300 characters; never raises."""
    try:
        text = " ".join(str(value).split())
    except BaseException:
        interrupts.check()
        return f"a {type(value).__name__} without a text"
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"


def notify_plugins(manager: pluggy.PluginManager, event: str, **facts: Any) -> None:
    """Call all plugins that implement the hook `event`. If one fails, a warning names it.

    `facts` are the hook's arguments, plain data of which each plugin receives a copy.
    """
    implementations = getattr(manager.hook, event).get_hookimpls()
    # pluggy calls the last implementation first; a plugin may have several.
    listeners = dict.fromkeys(hook.plugin for hook in reversed(implementations))
    for listener in listeners:
        others = [plugin for plugin in listeners if plugin is not listener]
        who = manager.get_name(listener) or one_line(listener)
        with warning_guard(who, f"{event}()", "The run continues."):
            manager.subset_hook_caller(event, others)(**deepcopy(facts))


STDOUT, STDERR = 1, 2


@contextmanager
def stdout_to_stderr() -> Iterator[Callable[[str], None]]:
    """Redirect stdout to stderr, also for C code; yield a function that writes a line to stdout."""
    out = sys.stdout
    with redirect_stdout(sys.stderr), _descriptor_to_stderr(out) as saved:

        def write(text: str) -> None:
            if saved is not None:
                os.dup2(saved, STDOUT)
            try:
                out.write(f"{text}\n")
                out.flush()
            finally:
                if saved is not None:
                    os.dup2(STDERR, STDOUT)

        yield write


@contextmanager
def _descriptor_to_stderr(out: TextIO) -> Iterator[int | None]:
    """Redirect the stdout of the process; yield a copy of its descriptor.

    Yields None if `out` is not the stdout of the process, as in a test or a notebook.
    """
    out.flush()
    try:
        own = out.fileno() == STDOUT
    except (OSError, UnsupportedOperation):
        own = False
    if not own:
        yield None
        return
    saved = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield saved
    finally:
        os.dup2(saved, STDOUT)
        os.close(saved)
