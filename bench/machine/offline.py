"""Working without a network: one switch for every source, for the time of a block.

The Hub's libraries use only what is in their caches. Whatever else asks for another machine, also
in a plugin, meets an error where Python opens a connection.

Where the Hub does not answer, its libraries ask again and again. It is asked once, for seconds, and
then only their caches are used.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

HUB_TIMEOUT = 5.0  # seconds for an answer, and for the look-up of the Hub's address
VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
# The libraries read the variables once, when they are imported.
_CONSTANTS = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    "transformers.utils.hub": ("_is_offline_mode",),  # before 5.0
}
_lock = Lock()
_blocks = 0  # number of open blocks, in all threads
_guarded = False
_reason = ""  # why no network is used
_before: dict[str, str | None] = {}  # values of the variables outside of all blocks
_switches: dict[tuple[Any, str], Any] = {}  # and of the libraries' switches


class OfflineError(OSError):
    """Something asked for another machine while no network is used."""


def is_offline() -> bool:
    """Return whether no network is used now."""
    return _blocks > 0


def offline_reason() -> str | None:
    """Return why no network is used now, in words; None: it is used."""
    return _reason if _blocks else None


@contextmanager
def offline(wanted: bool | str | None = True) -> Iterator[None]:
    """Use no network within the block, in this process and those that it starts, if `wanted`.

    `wanted` may be the reason in words; True: the user asked for it with --offline.
    Blocks nest, and the end of the last one restores what was before. All threads share one
    switch, since libraries keep one for all threads.
    """
    global _blocks, _reason
    if not wanted:
        yield
        return
    with _lock:
        _blocks += 1
        if _blocks == 1:
            _reason = wanted if isinstance(wanted, str) else "the Hub was not asked (--offline)"
            _before.update((name, os.environ.get(name)) for name in VARIABLES)
            os.environ.update(dict.fromkeys(VARIABLES, "1"))
            _switches.clear()
            _switches.update((place, getattr(*place)) for place in _imported())
            _set_switches(dict.fromkeys(_switches, True))
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                for name, value in _before.items():
                    os.environ.pop(name, None)
                    os.environ.update({} if value is None else {name: value})
                # Libraries that were imported within the block have read its variables.
                imported = dict.fromkeys(_imported(), _true(*VARIABLES))
                _set_switches({**imported, **_switches})


P = ParamSpec("P")
T = TypeVar("T")


def as_settings_say(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, which uses no network if its first argument, settings, wants none."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        settings: Any = args[0]
        with offline(settings.offline):
            return function(*args, **kwargs)

    return call


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


@contextmanager
def asking_hub() -> Iterator[None]:
    """Use only what is on this machine within the block, or a function, if the Hub is silent."""
    with offline(hub_silence()):
        yield


def refusal(error: BaseException) -> str:
    """Return what the Hub did instead of giving what was asked for, in words."""
    return offline_reason() or f"the Hub did not give it ({type(error).__name__})"


def _imported() -> Iterator[tuple[Any, str]]:
    """Yield the switches of libraries that are imported: a module, and a name in it."""
    for module, names in _CONSTANTS.items():
        library = sys.modules.get(module)
        yield from ((library, name) for name in names if hasattr(library, name))


def _true(*variables: str) -> bool:
    """Return whether a variable is true, as the libraries read them."""
    return any(os.environ.get(v, "").upper() in ("1", "ON", "YES", "TRUE") for v in variables)


def _set_switches(values: Mapping[tuple[Any, str], Any]) -> None:
    """Set the libraries' switches, and guard sockets."""
    global _guarded
    for (library, name), value in values.items():
        setattr(library, name, value)
    # Before huggingface_hub 1.0, a session remembered the switch of its start.
    getattr(sys.modules.get("huggingface_hub.utils"), "reset_sessions", lambda: None)()
    if not _guarded:
        sys.addaudithook(_guard)  # it cannot be removed
        _guarded = True


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections to other machines, and look-ups of their addresses."""
    if not _blocks or event not in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        return
    if "ray" in sys.modules:  # the machines of a cluster are a network that the user named
        return
    if event == "socket.connect":
        connecting, address = arguments
        # Connecting a datagram socket sends nothing; it is how a machine learns its own address.
        if connecting.type == socket.SOCK_DGRAM or not isinstance(address, tuple):
            return
        host = address[0]
    else:
        host = arguments[0] if event == "socket.getaddrinfo" else urlsplit(arguments[0]).hostname
    if not _is_here(host):
        raise OfflineError(errno.ENETUNREACH, f"no network is used here, and {host} was asked for")


def _is_here(host: Any) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ip_address(name)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as own:
            own.bind((name, 0))  # only an address of this machine can be bound
        return True
    except (OSError, ValueError):
        return False
