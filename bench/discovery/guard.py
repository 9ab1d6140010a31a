"""The guard around every call into plugin code: what goes wrong there names the plugin."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pluggy

from bench import interrupts
from bench.errors import BenchError, BenchWarning, PluginError, UserError

LONGEST = 300  # characters of a plugin's message that are shown


@contextmanager
def guard(
    who: str, doing: str, passing: tuple[type[BaseException], ...] = (UserError,)
) -> Iterator[None]:
    """Run plugin code, and turn whatever it raises into an error that names it.

    That includes SystemExit and a KeyboardInterrupt of its own; the user's interrupts pass.

    Args:
        who: the plugin, as `Spec.label` or `Plugin.label` have it.
        doing: what is called, such as `ask()`.
        passing: errors that are not the plugin's failure: a `UserError` says by itself what the
            user can do, unless the caller says otherwise.

    Raises:
        PluginError: the plugin raised something else.
    """
    try:
        yield
    except PluginError:
        raise
    except passing:
        raise
    except BaseException as error:
        interrupts.check()  # whatever was made of it
        if interrupts.is_users(error):
            raise
        raise PluginError(who, f"{doing} {_what_happened(error)}") from error
    interrupts.check()


def _what_happened(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"tried to end the program (exit code {one_line(error.code)})"
    text = one_line(error)
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")


def one_line(value: object) -> str:
    """Return a plugin's text or object on one line of sane length, whatever it is."""
    try:
        text = " ".join(str(value).split())
    except BaseException:  # even its text may fail
        interrupts.check()
        return f"a {type(value).__name__} without a text"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def tell(manager: pluggy.PluginManager, event: str, **facts: Any) -> None:
    """Tell every listener; one that fails is named in a warning, and the others hear of it too.

    Args:
        manager: the plugins and whoever else listens.
        event: the hook's name, such as `run_started`.
        facts: its arguments, plain data.
    """
    implementations = getattr(manager.hook, event).get_hookimpls()
    listeners = dict.fromkeys(one.plugin for one in reversed(implementations))
    for listener in listeners:
        others = [plugin for plugin in listeners if plugin is not listener]
        who = manager.get_name(listener) or one_line(listener)
        try:
            with guard(who, f"{event}()"):
                manager.subset_hook_caller(event, others)(**deepcopy(facts))
        except BenchError as error:
            said = error.said if isinstance(error, PluginError) else f"{event}(): {error}"
            warnings.warn(f"{who}: {said}. The run continues.", BenchWarning, stacklevel=2)
