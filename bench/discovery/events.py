"""Run events: each listener is told by itself, with copies of its own."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import pluggy

from bench.discovery.guard import guard, one_line
from bench.errors import BenchError, BenchWarning, PluginError


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
