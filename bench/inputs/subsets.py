"""Representative subsets of a dataset: the first N images, and shards of a run."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override


@dataclass(frozen=True)
class Shard:
    """One part of a run that is split into `count` parts; `index` counts from 1."""

    index: int
    count: int

    @override
    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Parse `I/N`. Raises ValueError if it has another form or I is not between 1 and N."""
    numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    shard = Shard(*map(int, numbers.groups())) if numbers else Shard(0, 0)
    if not 1 <= shard.index <= shard.count:
        raise ValueError("must be I/N with I from 1 to N, such as 3/16")
    return shard


def select_subset(
    sample_ids: Sequence[str], labels: Sequence[int], limit: int | None, shard: Shard | None = None
) -> list[str]:
    """Return `limit` sample ids, or those of them in a shard, in the order of the dataset.

    None as `limit` means all samples. The subset is stratified by class, subsets of different sizes
    are nested, and the order of the dataset does not matter. Samples are ranked within their class
    by a hash of their id and dealt out in rounds, one per class; within a round, classes are
    ordered by another hash, so that no class is always last. Each shard takes one of every `count`
    ranked samples, and so is stratified as well.
    """
    if shard is None and (limit is None or limit >= len(sample_ids)):
        return list(sample_ids)
    ranked = _rank_samples(sample_ids, labels)[:limit]
    if shard is not None:
        ranked = _select_shard(ranked, dict(zip(sample_ids, labels, strict=True)), shard)
    chosen = set(ranked)
    return [sample_id for sample_id in sample_ids if sample_id in chosen]


def hold_out(
    sample_ids: Sequence[str],
    labels: Sequence[int],
    share: float,
    groups: Sequence[str | None] | None = None,
) -> set[str]:
    """Return the ids of about a share of all samples, stratified by class.

    Groups, and samples without one, are visited in the order of a hash of their names, so that the
    order of the dataset does not matter. Each is held out as a whole if that lowers the first of
    these that it changes: the number of its classes that are on one side only; the distance of
    their held-out counts from the share of their sizes, summed; the same distance of all samples.
    """
    groups = groups or [None] * len(sample_ids)
    units: dict[str, list[int]] = {}
    for place, (sample_id, group) in enumerate(zip(sample_ids, groups, strict=True)):
        unit = f"sample {sample_id}" if group is None else f"group {group}"
        units.setdefault(unit, []).append(place)
    sizes, held, chosen = Counter(labels), Counter[int](), set[str]()
    for unit in sorted(units, key=_hash_text):
        added = Counter(labels[place] for place in units[unit])
        without, with_unit = (
            _imbalance({label: counts[label] for label in added}, sizes, share)
            for counts in (held, held + added)
        )
        missing = share * len(sample_ids) - len(chosen)
        if (*with_unit, abs(missing - added.total())) < (*without, abs(missing)):
            held += added
            chosen.update(sample_ids[place] for place in units[unit])
    return chosen


def _imbalance(
    held: Mapping[int, int], sizes: Mapping[int, int], share: float
) -> tuple[int, float]:
    """Return how many classes are on one side only, and the sum of their counts' distances."""
    one_sided = sum(n in (0, sizes[label]) for label, n in held.items())
    return one_sided, sum(abs(n - share * sizes[label]) for label, n in held.items())


def shuffle_samples(sample_ids: Iterable[str], fingerprint: str) -> list[str]:
    """Return samples in a random order that depends only on their ids and the data's fingerprint.

    All runs on a dataset share it. Unlike the order of `select_subset`, it is uniform over all
    permutations, as sequential tests require: with stratified subsets they reject true null
    hypotheses.
    """
    return sorted(sample_ids, key=lambda sample_id: _hash_text(f"{fingerprint}:{sample_id}"))


def draw_sample(sample_ids: Sequence[str], count: int, key: str) -> list[str]:
    """Return `count` samples, drawn uniformly by `key`, in the order of the dataset.

    A stratified subset would not be a fair sample of decisions: mistakes in large classes would be
    underrepresented.
    """
    chosen = set(shuffle_samples(sample_ids, key)[:count])
    return [sample_id for sample_id in sample_ids if sample_id in chosen]


def _rank_samples(sample_ids: Sequence[str], labels: Sequence[int]) -> list[str]:
    by_class: dict[int, list[str]] = {}
    for sample_id, label in zip(sample_ids, labels, strict=True):
        by_class.setdefault(label, []).append(sample_id)
    dealt: list[tuple[int, str, str]] = []
    for label, members in by_class.items():
        for position, sample_id in enumerate(sorted(members, key=_hash_text)):
            dealt.append((position, _hash_text(f"{position}:{label}"), sample_id))
    return [sample_id for _, _, sample_id in sorted(dealt)]


def _select_shard(ranked: Sequence[str], label_of: Mapping[str, int], shard: Shard) -> list[str]:
    """Return the samples of a shard; for a longer ranking, earlier samples stay in their shards.

    Every `count` successive samples are distributed over all shards. One goes to the shard that has
    waited longest for its class: dealt by position alone, a class of 40 images gave 3 images to one
    of 4 shards and 13 to another.
    """
    mine: list[str] = []
    waiting: dict[int, list[int]] = {}  # label → shards, the one that waits longest first
    free: set[int] = set()
    for name in ranked:
        free = free or set(range(1, shard.count + 1))
        queue = waiting.setdefault(label_of[name], list(range(1, shard.count + 1)))
        turn = next(place for place, index in enumerate(queue) if index in free)
        index = queue.pop(turn)
        queue.append(index)
        free.remove(index)
        if index == shard.index:
            mine.append(name)
    return mine


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
