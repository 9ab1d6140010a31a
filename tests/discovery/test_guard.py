"""The guard: whatever a plugin raises names it, and the user's own Ctrl-C passes."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench import interrupts
from bench.discovery.guard import MAX_CHARACTERS, guard, one_line
from bench.errors import PluginError, UserError


class Nameless(BaseException):
    def __str__(self) -> str:
        raise SystemExit(0)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Listen to signals as the command does, for one test."""
    monkeypatch.setattr(interrupts, "_state", interrupts._State())
    before = {number: signal.getsignal(number) for number in interrupts.WORDS}
    interrupts.listen()
    interrupts.begin_work()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too\nbad"), "ask() raised ValueError: too bad"),
        (SystemExit(0), "ask() tried to end the program (exit code 0)"),
        (SystemExit("bye"), "ask() tried to end the program (exit code bye)"),
        (KeyboardInterrupt(), "ask() raised KeyboardInterrupt"),
        (GeneratorExit(), "ask() raised GeneratorExit"),
        (StopIteration(3), "ask() raised StopIteration: 3"),
        (MemoryError(), "ask() raised MemoryError"),
        (Nameless(), "ask() raised Nameless: a Nameless without a text"),
    ],
)
def test_whatever_is_raised_names_the_plugin(
    error: BaseException, said: str, listening: None
) -> None:
    with pytest.raises(PluginError) as caught, guard("the plugin", "ask()"):
        raise error
    assert (caught.value.problem, str(caught.value)) == (said, f"the plugin: {said}")
    assert caught.value.__cause__ is error and caught.value.exit_code == 2


def test_what_passes() -> None:
    with pytest.raises(UserError), guard("x", "y"):
        raise UserError("the user can fix this")
    with pytest.raises(LookupError), guard("x", "y", passing=(LookupError,)):
        raise LookupError("the caller handles it")
    with pytest.raises(PluginError), guard("x", "y", passing=()):
        raise UserError("the user cannot fix this")
    # Where nobody listens, as in a notebook, it is the user's.
    with pytest.raises(KeyboardInterrupt), guard("x", "y"):
        raise KeyboardInterrupt


def test_a_message_is_one_line_of_sane_length() -> None:
    assert one_line("a\n\tb") == "a b"
    assert len(one_line("x" * 1_000_000)) == MAX_CHARACTERS + 2


@pytest.mark.parametrize("number", list(interrupts.WORDS))
def test_an_interrupt_passes_and_is_not_swallowed(number: signal.Signals, listening: None) -> None:
    with pytest.raises(interrupts.Interrupt), guard("x", "y"):
        os.kill(os.getpid(), number)
    # Swallowed, as some libraries do.
    with pytest.raises(interrupts.Interrupt), guard("x", "y"), suppress(BaseException):
        os.kill(os.getpid(), number)
    with pytest.raises(interrupts.Interrupt), guard("x", "y"):
        raise ImportError("made of an interrupt")
    assert interrupts.exit_code() == 128 + number
    interrupts.end_work()
    os.kill(os.getpid(), number)
    interrupts.check()
