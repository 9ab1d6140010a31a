"""Work without a network: one switch for all sources, for the duration of a block.

The Hub's libraries then use only their caches. Any other code that tries to connect to another
machine, including code in plugins, gets an error when Python opens the connection. Nothing is
blocked if Ray is imported, because it connects to the machines of the user's cluster.

The Hub's libraries retry many times if the Hub does not answer. So it is probed once, for a few
seconds, and only their caches are used if it is unreachable.
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

HUB_TIMEOUT = 5.0  # seconds to wait for an answer, and for the look-up of the Hub's address
VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
# Copies of the variables in libraries, which read them only once, when they are imported.
_CONSTANTS = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    "transformers.utils.hub": ("_is_offline_mode",),  # before 5.0
}
_lock = Lock()
_blocks = 0  # number of open blocks, in all threads
_guarded = False
_reason = ""  # why no network is used
_before: dict[str, str | None] = {}  # values of the variables before the outermost block
_switches: dict[tuple[Any, str], Any] = {}  # values of the libraries' copies before it


class OfflineError(OSError):
    """Code tried to connect to another machine while no network is used."""


def is_offline() -> bool:
    """Return whether no network is used now."""
    return _blocks > 0


def offline_reason() -> str | None:
    """Return why no network is used now, as a text; None if it is used."""
    return _reason if _blocks else None


@contextmanager
def offline(reason: bool | str | None = True) -> Iterator[None]:
    """Use no network within the block, in this process and those that it starts.

    Blocks can be nested; the end of the outermost block restores the previous state. All threads
    share one switch, because the libraries do. `reason` is a text; True if the user set --offline,
    False or None for a block without effect.
    """
    global _blocks, _reason
    if not reason:
        yield
        return
    with _lock:
        _blocks += 1
        if _blocks == 1:
            _reason = reason if isinstance(reason, str) else "the Hub was not asked (--offline)"
            _before.update((name, os.environ.get(name)) for name in VARIABLES)
            os.environ.update(dict.fromkeys(VARIABLES, "1"))
            _switches.clear()
            _switches.update((place, getattr(*place)) for place in _imported_switches())
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
                # Libraries that were imported within the block have read the block's values.
                imported = dict.fromkeys(_imported_switches(), _is_any_set(*VARIABLES))
                _set_switches({**imported, **_switches})


P = ParamSpec("P")
T = TypeVar("T")


def offline_if_set(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to use no network if `offline` is set in its first argument."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        settings: Any = args[0]
        with offline(settings.offline):
            return function(*args, **kwargs)

    return call


def hub_silence() -> str | None:
    """Return why the Hub does not answer, or None; wait at most `HUB_TIMEOUT` + 1 seconds."""
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
        except Exception as error:  # the type depends on the version of huggingface_hub
            problems[:] = [type(error).__name__]

    thread = Thread(target=ask, daemon=True)  # the look-up of an address cannot be interrupted
    thread.start()
    thread.join(HUB_TIMEOUT + 1)
    return f"the Hub does not answer ({problems[0]})" if problems else None


@contextmanager
def asking_hub() -> Iterator[None]:
    """Use only local files within the block, or the decorated function, if the Hub is silent."""
    with offline(hub_silence()):
        yield


def refusal(error: BaseException) -> str:
    """Return why something could not be fetched from the Hub, as a text."""
    status = hub_status(error)
    answer = (
        f"did not provide it ({type(error).__name__})" if status is None else f"answered {status}"
    )
    return offline_reason() or f"the Hub {answer}"


def hub_status(error: BaseException | None) -> int | None:
    """Return the HTTP status with which the Hub refused a request; None if it did not answer."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def may_be_absent(error: BaseException) -> bool:
    """Return whether a file that could not be fetched may not exist on the Hub.

    The Hub says so, or was not asked. Any other answer is about a file that it may have; its client
    calls that a `LocalEntryNotFoundError`, which is a kind of `EntryNotFoundError`.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return hub_status(error) is None
    return isinstance(error, EntryNotFoundError)


def _imported_switches() -> Iterator[tuple[Any, str]]:
    """Yield the copies in imported libraries, each as a module and a name in it."""
    for module, names in _CONSTANTS.items():
        library = sys.modules.get(module)
        yield from ((library, name) for name in names if hasattr(library, name))


def _is_any_set(*variables: str) -> bool:
    """Return whether any of the variables is true in the way the libraries read them."""
    return any(os.environ.get(v, "").upper() in ("1", "ON", "YES", "TRUE") for v in variables)


def _set_switches(values: Mapping[tuple[Any, str], Any]) -> None:
    """Set the libraries' copies of the variables, and install the audit hook if necessary."""
    global _guarded
    for (library, name), value in values.items():
        setattr(library, name, value)
    # Before huggingface_hub 1.0, a session kept the value from when it was created.
    getattr(sys.modules.get("huggingface_hub.utils"), "reset_sessions", lambda: None)()
    if not _guarded:
        sys.addaudithook(_refuse_connections)  # an audit hook cannot be removed
        _guarded = True


def _refuse_connections(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: raise for connections to other machines and look-ups of their addresses."""
    if not _blocks or event not in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        return
    if "ray" in sys.modules:  # the user chose to use the machines of a cluster
        return
    if event == "socket.connect":
        connecting, address = arguments
        # Connecting a datagram socket sends nothing; machines use it to find their own address.
        if connecting.type == socket.SOCK_DGRAM or not isinstance(address, tuple):
            return
        host = address[0]
    else:
        host = arguments[0] if event == "socket.getaddrinfo" else urlsplit(arguments[0]).hostname
    if not _is_local(host):
        raise OfflineError(errno.ENETUNREACH, f"no network is used here, but {host} was requested")


def _is_local(host: Any) -> bool:
    """Return whether a host name or address, as text or bytes, is this machine."""
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
