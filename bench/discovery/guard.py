"""The guard around plugin code: errors name the plugin, and what it prints goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from io import UnsupportedOperation
from typing import Any, TextIO

import pluggy

from bench import interrupts
from bench.errors import BenchError, PluginError, UserError, warn_user

LONGEST = 300  # characters of a plugin's message that are shown


@contextmanager
def guard(
    who: str, doing: str, passing: tuple[type[BaseException], ...] = (UserError,)
) -> Iterator[None]:
    """Run plugin code, and turn whatever it raises into a `PluginError` that names it.

    That includes SystemExit and a KeyboardInterrupt of its own; the user's interrupts pass, and so
    do `passing`, such as a `UserError`, which teaches by itself. `who` is a plugin's label, `doing`
    the call, such as `ask()`.
    """
    passing = (PluginError, *passing)
    try:
        yield
    except passing:
        raise
    except BaseException as error:
        interrupts.check()  # which the plugin may have turned into another error
        if interrupts.is_users(error):
            raise
        text = one_line(error)
        reason = f"raised {type(error).__name__}" + (f": {text}" if text else "")
        if isinstance(error, SystemExit):
            reason = f"tried to end the program (exit code {one_line(error.code)})"
        raise PluginError(who, f"{doing} {reason}") from error
    interrupts.check()


def one_line(value: object) -> str:
    """Return the text of any object of a plugin on one line of at most 300 characters."""
    try:
        text = " ".join(str(value).split())
    except BaseException:  # even its text may fail
        interrupts.check()
        return f"a {type(value).__name__} without a text"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def tell(manager: pluggy.PluginManager, event: str, **facts: Any) -> None:
    """Call every listener of a run event, a hook's name; one that fails is named in a warning.

    `facts` are the hook's arguments, plain data, of which each listener gets a copy.
    """
    implementations = getattr(manager.hook, event).get_hookimpls()
    listeners = dict.fromkeys(hook.plugin for hook in reversed(implementations))
    for listener in listeners:
        others = [plugin for plugin in listeners if plugin is not listener]
        who = manager.get_name(listener) or one_line(listener)
        try:
            with guard(who, f"{event}()"):
                manager.subset_hook_caller(event, others)(**deepcopy(facts))
        except BenchError as error:
            reason = error.problem if isinstance(error, PluginError) else f"{event}(): {error}"
            warn_user(f"{who}: {reason}. The run continues.")


STDOUT, STDERR = 1, 2


@contextmanager
def set_aside() -> Iterator[Callable[[str], None]]:
    """Send to stderr whatever is printed, by C code too; yield a function that prints on stdout."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        with _descriptor_set_aside(out) as kept:

            def write(text: str) -> None:
                if kept is not None:
                    os.dup2(kept, STDOUT)
                try:
                    out.write(f"{text}\n")
                    out.flush()
                finally:
                    if kept is not None:
                        os.dup2(STDERR, STDOUT)

            yield write
    finally:
        sys.stdout = out


@contextmanager
def _descriptor_set_aside(out: TextIO) -> Iterator[int | None]:
    """Redirect the process's own stdout; a test's or a notebook's has no descriptor."""
    out.flush()
    try:
        own = out.fileno() == STDOUT
    except (OSError, UnsupportedOperation):
        own = False
    if not own:
        yield None
        return
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield kept
    finally:
        os.dup2(kept, STDOUT)
        os.close(kept)
