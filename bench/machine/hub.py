"""Whether the Hugging Face Hub can be asked, and what messages say where it cannot.

The Hub's libraries ask again and again where nothing answers. It is asked once, for seconds, and
then only their caches are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from threading import Thread
from typing import ParamSpec, TypeVar

from bench.machine.offline import offline, offline_reason

HUB_TIMEOUT = 5.0  # seconds for an answer, and for the look-up of the Hub's address


def hub_silence() -> str | None:
    """Return why the Hub is not asked, in words, where no network is used or none answers."""
    if (reason := offline_reason()) is not None:
        return reason
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "the Hub was not asked (HF_HUB_OFFLINE)"
    problems = ["TimeoutError"]

    def ask() -> None:
        try:
            address = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
            get_session().head(address, timeout=HUB_TIMEOUT)
            problems.clear()
        except Exception as error:  # each version of its client raises others
            problems[:] = [type(error).__name__]

    thread = Thread(target=ask, daemon=True)  # nothing interrupts the look-up of an address
    thread.start()
    thread.join(HUB_TIMEOUT + 1)
    return f"the Hub does not answer ({problems[0]})" if problems else None


def refusal(error: BaseException) -> str:
    """Return what the Hub did instead of giving what was asked for, in words."""
    return offline_reason() or f"the Hub did not give it ({type(error).__name__})"


P = ParamSpec("P")
T = TypeVar("T")


def asks_hub(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, which uses only what is on this machine where the Hub is silent."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with offline(hub_silence()):
            return function(*args, **kwargs)

    return call
