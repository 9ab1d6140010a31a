"""Giving out images: each is decided once, whatever workers do, and the work is even."""

import heapq
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_plugins.executors.dispatch import Dispatch, DispatchRules

IDS = [f"s{number:03d}" for number in range(200)]


def drain(dispatch: Dispatch, worker: str, now: float = 0.0) -> list[str]:
    """Have one worker decide all that it is given until nothing is left for it."""
    done: list[str] = []
    while ids := dispatch.give(worker, now):
        now += 0.1 * len(ids)
        done += dispatch.decided(worker, ids, now)
    return done


@pytest.mark.parametrize(("rate", "size"), [(20, 20), (1000, 32), (0.2, 1)])
def test_a_block_takes_a_second_and_no_more_than_32_images(rate: float, size: int) -> None:
    dispatch, sizes, now = Dispatch(map(str, range(2_000)), ["a"]), [], 0.0
    while ids := dispatch.give("a", now):
        sizes.append(len(ids))
        now += len(ids) / rate
        dispatch.decided("a", ids, now)
    assert sizes[0] == 1  # its speed is not known yet
    assert set(sizes[2:-1]) == {size}


def test_a_worker_holds_no_more_than_half_of_its_share_of_what_is_left() -> None:
    dispatch = Dispatch(IDS, ["a", "b"])
    dispatch.decided("a", dispatch.give("a", 0.0), 0.001)
    held = 0
    while ids := dispatch.give("a", 1.0):
        held += len(ids)
    assert held == dispatch.holds("a") == 50
    dispatch.decided("a", IDS[1:11], 1.0)
    assert len(dispatch.give("a", 1.0)) == 7  # of 189 that are left


def test_the_last_images_are_given_one_by_one() -> None:
    dispatch = Dispatch(IDS, ["a", "b", "c", "d"])
    for worker in "abcd":
        ids = dispatch.give(worker, 0.0)
        dispatch.decided(worker, ids, 0.001)  # quick ones: no limit by time
    sizes = []
    while ids := dispatch.give("a", 1.0):
        sizes.append(len(ids))
        dispatch.decided("a", ids, 1.001 + len(sizes))
    assert sizes[0] == (len(IDS) - 4) // 4 // 2
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-4:] == [1, 1, 1, 1]


def test_an_image_that_ended_workers_comes_alone_after_all_others() -> None:
    dispatch = Dispatch(IDS, ["a", "b"], DispatchRules(together=1))
    [lone] = dispatch.give("a", 0.0)
    dispatch.lost("a")
    taken = dispatch.give("b", 0.1)
    ids: tuple[str, ...] = ()
    while lone not in ids:
        dispatch.decided("a", ids, 0.2)
        ids = dispatch.give("a", 0.1)
    assert ids == (lone,) and dispatch.left == 1 + len(taken)
    assert dispatch.give("a", 1.0) == dispatch.give("b", 1.0) == ()
    dispatch.decided("b", taken, 1.0)
    assert dispatch.decided("a", [lone], 2.0) == (lone,)
    assert dispatch.left == 0


def test_a_worker_that_only_ends_is_given_up() -> None:
    dispatch = Dispatch(IDS, ["a", "b"], DispatchRules(deaths=3))
    assert [dispatch.lost("a")[2] for _ in range(3)] == [True, True, False]
    assert drain(dispatch, "b") == IDS
    assert dispatch.left == 0


def test_deciding_an_image_clears_a_worker_s_record() -> None:
    dispatch = Dispatch(IDS, ["a"], DispatchRules(deaths=2, together=9))
    for now in range(8):
        dispatch.decided("a", dispatch.give("a", now), now + 0.5)
        assert dispatch.lost("a")[2]


def test_a_worker_that_leaves_is_no_fault_of_its_images() -> None:
    dispatch = Dispatch(IDS[:2], ["a", "b"], DispatchRules(together=1))
    ids = dispatch.give("a", 0.0)
    dispatch.leave("a")
    assert dispatch.decided("a", ids, 1.0) == ()
    assert drain(dispatch, "b") == [IDS[1], ids[0]]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 60),
    workers=st.integers(1, 5),
    kills=st.floats(0, 0.4),
    bad=st.sets(st.integers(0, 59), max_size=2),
)
def test_each_image_is_decided_once_or_fails_whatever_happens(
    seed: int, images: int, workers: int, kills: float, bad: set[int]
) -> None:
    """Fake workers decide some of what they hold, die at random, and always with a bad image."""
    chance, ids = random.Random(seed), [f"i{n}" for n in range(images)]
    names, bad_ids = [f"w{n}" for n in range(workers)], {f"i{n}" for n in bad if n < images}
    rules = DispatchRules(deaths=10**6)
    dispatch, now = Dispatch(ids, names, rules), 0.0
    held: dict[str, list[str]] = {name: [] for name in names}
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    alive_kills = 40  # by chance; after that only bad images kill
    for _ in range(20_000):
        if not dispatch.left:
            break
        now += 0.01
        name = chance.choice(names)
        held[name] += dispatch.give(name, now)
        assert len(held[name]) == dispatch.holds(name)
        doomed = bad_ids & set(held[name])
        if doomed or (alive_kills and held[name] and chance.random() < kills):
            alive_kills -= not doomed
            failed.update(dispatch.lost(name)[1])
            held[name] = []
        else:
            count = chance.randint(0, len(held[name]))
            some, held[name] = held[name][:count], held[name][count:]
            done.update(dispatch.decided(name, some, now))
    assert dispatch.left == 0
    assert set(done) | set(failed) == set(ids)
    assert set((done + failed).values()) == {1}
    assert bad_ids <= set(failed)


def makespan(costs: Mapping[str, float], workers: int) -> float:
    """Return when the last of so many equal workers is done that ask when they have nothing."""
    names = [f"w{n}" for n in range(workers)]
    dispatch, end = Dispatch(costs, names), 0.0
    free: list[tuple[float, str, tuple[str, ...]]] = [(0.0, name, ()) for name in names]
    while free:
        now, name, ids = heapq.heappop(free)
        dispatch.decided(name, ids, now)
        if given := dispatch.give(name, now):
            heapq.heappush(free, (now + sum(costs[i] for i in given), name, given))
        end = max(end, now)
    assert dispatch.left == 0
    return end


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_uneven_costs_even_out(workers: int) -> None:
    chance = random.Random(workers)
    costs = {f"i{n}": chance.lognormvariate(-2, 1.5) for n in range(3000)}
    best = sum(costs.values()) / workers
    assert makespan(costs, workers) < 1.03 * best + max(costs.values())
