"""Fewer threads where a thread must wait for a core, and all of them again where it need not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.engine import denoising as threads
from bench.engine.denoising import Threads, threads_for


@pytest.mark.parametrize(
    ("now", "most", "waiting", "wanted"),
    [
        (8, 8, 0.0, 8),
        (8, 8, 0.5, 4),
        (2, 2, 0.3, 1),
        (1, 2, 0.3, 1),
        (4, 8, 0.1, 4),  # in between nothing changes
        (4, 8, 0.01, 8),
        (6, 8, 0.01, 8),
    ],
)
def test_how_many_threads_are_next(now: int, most: int, waiting: float, wanted: int) -> None:
    assert threads_for(now, most, waiting) == wanted


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a file stand for the kernel's count of this thread, and two threads for all there are."""
    for name in threads.CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    chosen = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: chosen[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: chosen.__setitem__(0, n))
    monkeypatch.setattr(threads, "WAITING", tmp_path / "schedstat")
    monkeypatch.setattr(threads, "ADAPTS_EVERY", 0.0)
    return tmp_path / "schedstat"


def test_a_busy_machine_takes_a_thread_and_a_quiet_one_gives_it_back(kernel: Path) -> None:
    adapting = Threads()
    kernel.write_text("1000 2000 3\n")
    adapting.adapt()
    assert torch.get_num_threads() == 1
    kernel.write_text("2000 2010 4\n")  # since then it hardly waited
    adapting.adapt()
    assert torch.get_num_threads() == 2


def test_a_number_of_the_user_s_stays(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.write_text("1000 2000 3\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    Threads().adapt()
    assert torch.get_num_threads() == 2


def test_where_the_kernel_does_not_count_nothing_changes(kernel: Path) -> None:
    Threads().adapt()
    assert torch.get_num_threads() == 2


def test_changes_are_seconds_apart(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ADAPTS_EVERY", 1000.0)
    adapting = Threads()
    kernel.write_text("1000 0 3\n")
    adapting.adapt()
    kernel.write_text("2000 9000 4\n")
    adapting.adapt()
    assert torch.get_num_threads() == 2
