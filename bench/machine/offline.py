"""Work without a network: one switch for all sources, for the duration of a block.

The Hub's libraries then use only their caches. Any other code that tries to connect to another
machine, including code in plugins, gets an error when Python opens the connection. Nothing is
blocked if Ray is imported, because it connects to the machines of the user's cluster.

The Hub's libraries retry many times if the Hub does not answer. So it is probed once, for a few
seconds, and only their caches are used if it is unreachable.
"""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import wraps
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from bench.machine.guest import set_variable
from bench.machine.libraries import hub_constants, huggingface_hub
from bench.machine.libraries.private_transformers import OFFLINE_COPY

HUB_TIMEOUT = 5.0  # seconds to wait for an answer, and for the look-up of the Hub's address
VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
# Copies of the variables in libraries, which read them only once, when they are imported.
_CONSTANTS = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    OFFLINE_COPY[0]: OFFLINE_COPY[1:],
}
_lock = Lock()
_blocks = 0  # number of open blocks, in all threads
_guarded = False
_reason = ""  # why no network is used
_before: dict[str, str | None] = {}  # values of the variables before the outermost block
_switches: dict[tuple[Any, str], Any] = {}  # values of the libraries' copies before it


class OfflineError(OSError):
    """Code tried to connect to another machine while no network is used."""


class SilentHubError(Exception):
    """The Hub was not asked or does not answer; the message says which."""


def is_offline() -> bool:
    """Return whether no network is used now."""
    return _blocks > 0


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
                    set_variable(name, value)
                # Libraries that were imported within the block have read the block's values. They
                # get what they would have read before it: whether a variable is true.
                values = (os.environ.get(name, "").upper() for name in VARIABLES)
                is_set = any(value in ("1", "ON", "YES", "TRUE") for value in values)
                _set_switches({**dict.fromkeys(_imported_switches(), is_set), **_switches})


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


def why_not_asked() -> str | None:
    """Return why the Hub is not asked now, or None."""
    if _blocks:
        return _reason
    return "the Hub was not asked (HF_HUB_OFFLINE)" if hub_constants.HF_HUB_OFFLINE else None


def hub_silence() -> str | None:
    """Return why the Hub does not answer, or None; wait at most `HUB_TIMEOUT` + 1 seconds."""
    if (reason := why_not_asked()) is not None:
        return reason
    address = os.environ.get("HF_ENDPOINT") or hub_constants.ENDPOINT

    def ask() -> object:
        # The session is made in the thread that asks: huggingface-hub before 1.0 keeps one per
        # thread, and one that is made while no network is used refuses every later request.
        return huggingface_hub.get_session().head(address, timeout=HUB_TIMEOUT)

    try:
        ask_promptly(ask, HUB_TIMEOUT)
    except SilentHubError as error:
        return str(error)
    return None


def ask_promptly(ask: Callable[[], T], seconds: float) -> T:
    """Return what `ask` returns, or raise SilentHubError a second after it should have.

    The look-up of an address cannot be interrupted, and would last longer. If the Hub answered with
    an HTTP status, the error of its client is raised.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds + 1)
    except Exception as error:  # the type depends on the version of huggingface_hub
        if isinstance(error, ValueError) or getattr(error, "response", None) is not None:
            raise
        raise SilentHubError(f"the Hub does not answer ({type(error).__name__})") from error


def _imported_switches() -> Iterator[tuple[Any, str]]:
    """Yield the copies in imported libraries, each as a module and a name in it."""
    for module, names in _CONSTANTS.items():
        library = sys.modules.get(module)
        yield from ((library, name) for name in names if hasattr(library, name))


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
