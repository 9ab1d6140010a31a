"""Convert the results of a pipeline's `encode_prompt` to a tree with one row per text, and back.

`encode_prompt` returns a tuple, such as (embeddings, negative embeddings, mask). Each place in it
is called a slot. How a slot depends on the texts is inferred from a short text, a long one and
both. Some pipelines pad texts to a fixed length. Others pad to the longest text of the batch; then
texts are encoded one by one, so that no row depends on its neighbours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from bench.engine.transfer import to_device
from bench.errors import UserError
from bench_plugins.backbones._pipelines.gate import unusable

SHORT = "a"
TEXTS_PER_CALL = 16
LONG = "a word " * 1024  # longer than the limit of any pipeline
EMBEDDING_SCALE = 0.1  # of random embeddings; that of T5's, so that no network overflows
Encode = Callable[[list[str]], list[Any]]  # texts → the result of each call of `encode_prompt`


@dataclass(frozen=True)
class Slot:
    """One place in the tuple that `encode_prompt` returns.

    Attributes:
        kind: `rows`, a tensor with one row per text; `list`, a list with one tensor per text;
            `shared`, one tensor for all texts of the same length; `mask`, a mask of the padding,
            computed from the lengths; `fixed`, a value that does not depend on the texts.
        limit: the largest number of tokens, if it varies with the text; None if it does not.
        value: the value of a `fixed` slot, or the dtype of a `mask`.
    """

    name: str
    kind: str
    limit: int | None = None
    value: Any = None


@dataclass(frozen=True)
class Slots:
    """The slots of the results of a pipeline's calls of `encode_prompt`.

    A length is the number of tokens of a text in one slot. The lengths of a text are those in all
    slots that have a `limit`, in order.

    Attributes:
        who: the name of the pipeline in messages.
        bare: for each call, whether it returns a single value instead of a tuple.
        slots: the slots of each call.
    """

    who: str
    bare: tuple[bool, ...]
    slots: tuple[tuple[Slot, ...], ...]

    @classmethod
    def inferred(cls, encode: Encode, who: str) -> Self:
        """Return the slots, inferred from three calls of `encode`.

        Raises UserError if a result cannot be split into rows.
        """
        encoded = encode([SHORT]), encode([LONG]), encode([SHORT, LONG])
        if not encoded[0] or len({len(calls) for calls in encoded}) > 1:
            raise unusable(who, "it does not encode prompts with `encode_prompt`")
        empty = cls(who, tuple(not isinstance(value, tuple) for value in encoded[0]), ())
        slots = tuple(
            tuple(
                _slot(who, f"{call}.{place}", *values)
                for place, values in enumerate(zip(*returned, strict=True))
            )
            for call, returned in enumerate(zip(*map(empty._values, encoded), strict=True))
        )
        return replace(empty, slots=slots)

    @property
    def masked(self) -> bool:
        """Whether a mask covers the padding of texts."""
        return any(slot.kind == "mask" for slot in self._all())

    def _values(self, returned: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the results of calls as tuples, also if they are a single value."""
        return [(v,) if bare else v for v, bare in zip(returned, self.bare, strict=True)]

    def _calls(self, values: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Undo `_values`."""
        return [v[0] if bare else v for v, bare in zip(values, self.bare, strict=True)]

    def _all(self) -> list[Slot]:
        return [slot for call in self.slots for slot in call]

    def tree(self, texts: Sequence[str], encode: Encode) -> dict[str, Tensor]:
        """Encode texts. Every leaf has one row per text, padded with zeros to the slot's limit.

        Texts are encoded in batches if their length is fixed, and otherwise one by one.
        """
        is_batchable = all(
            slot.kind == "fixed" or (slot.kind == "rows" and slot.limit is None)
            for slot in self._all()
        )
        batch = TEXTS_PER_CALL if is_batchable else 1
        groups = [list(texts[n : n + batch]) for n in range(0, len(texts), batch)]
        return self.rows([encode(group) for group in groups], groups)

    def rows(self, encoded: Sequence[list[Any]], groups: Sequence[list[str]]) -> dict[str, Tensor]:
        """Return the tree, one row per text in each leaf, from the encodings of groups of texts."""
        rows: dict[str, list[Tensor]] = {}
        for returned, texts in zip(encoded, groups, strict=True):
            values = [value for call in self._values(returned) for value in call]
            for slot, value in zip(self._all(), values, strict=True):
                if slot.kind == "mask" and value is not None and not value.all():
                    raise unusable(
                        self.who, f"it pads {texts[0][:80]!r} under a mask, also where it is alone"
                    )
                if slot.kind in ("rows", "list", "shared"):
                    each_row = [value] if slot.kind == "shared" else value
                    for row, text in zip(each_row, texts, strict=True):
                        self._append(slot, row, text, rows)
        return {name: torch.stack(tensors) for name, tensors in rows.items()}

    def negative(self, plain: list[Any], guided: list[Any]) -> list[Any]:
        """Return `plain` with the negative prompt's values in place of the prompt's.

        The slots of negative values are empty in `plain`, an encoding without guidance, and filled
        in the same order in `guided`. If there are none, `plain` is returned unchanged.
        """
        calls = []
        for own, both in zip(self._values(plain), self._values(guided[: len(plain)]), strict=True):
            positive = [place for place, value in enumerate(own) if not _is_empty(value)]
            negative = [
                value
                for place, value in enumerate(both)
                if place not in positive and not _is_empty(value)
            ]
            values = list(own)
            if len(negative) == len(positive):
                for place, value in zip(positive, negative, strict=True):
                    values[place] = value
            calls.append(tuple(values))
        return self._calls(calls)

    def _append(self, slot: Slot, row: Tensor, text: str, rows: dict[str, list[Tensor]]) -> None:
        """Append a text's row to the slot's leaf in `rows`, padded, and its length to another."""
        if slot.limit is not None:
            if (spare := slot.limit - len(row)) < 0:
                raise UserError(
                    f"{self.who} takes at most {slot.limit} tokens, but the prompt {text[:80]!r}"
                    f" has {len(row)}."
                )
            length = torch.tensor(len(row), device=row.device)
            rows.setdefault(_length_name(slot), []).append(length)
            row = F.pad(row, (0, 0) * (row.ndim - 1) + (0, spare))
        rows.setdefault(slot.name, []).append(row)

    def varied(self, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return two rows of different lengths with random embeddings, for a tree of one row."""
        generator, rows = torch.Generator().manual_seed(0), dict(tree)
        for slot in self._all():
            if slot.limit is not None:
                length = tree[_length_name(slot)]
                rows[_length_name(slot)] = torch.cat([length, torch.full_like(length, slot.limit)])
            if (leaf := tree.get(slot.name)) is not None:
                values = leaf.expand(2, *leaf.shape[1:])
                if slot.kind != "shared":  # positions, which are the same for all texts
                    values = torch.ones(values.shape)
                    if leaf.is_floating_point():  # not a mask
                        values = EMBEDDING_SCALE * torch.randn(values.shape, generator=generator)
                rows[slot.name] = values.to(leaf)
        return rows

    @property
    def length_names(self) -> list[str]:
        """The leaves that are lengths; the host reads them."""
        return [_length_name(slot) for slot in self._all() if slot.limit is not None]

    def on(self, device: torch.device) -> Self:
        """Return the slots with fixed values on a device."""
        calls = (
            tuple(
                replace(slot, value=slot.value.to(device))
                if slot.kind == "fixed" and isinstance(slot.value, Tensor)
                else slot
                for slot in call
            )
            for call in self.slots
        )
        return replace(self, slots=tuple(calls))

    def lengths(self, tree: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
        """Return the lengths of each text, which are best on the host."""
        leaves = [tree[name] for name in self.length_names]
        if not leaves:
            return [()] * len(next(iter(tree.values())))
        return [tuple(row) for row in torch.stack(leaves, dim=1).tolist()]

    def batch_key(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of a text's lengths that must be equal for all texts of one call.

        With a mask there are none, because the mask covers the padding. In a list, too, each text
        has its own length.
        """
        if self.masked:
            return ()
        varying = [slot for slot in self._all() if slot.limit is not None]
        pairs = zip(lengths, varying, strict=True)
        return tuple(length for length, slot in pairs if slot.kind != "list")

    def returned(self, tree: Mapping[str, Tensor], lengths: list[tuple[int, ...]]) -> list[Any]:
        """Return what the calls of `encode_prompt` would return for the rows of a tree."""
        columns = iter(zip(*lengths, strict=True))
        by_name = {slot.name: next(columns) for slot in self._all() if slot.limit is not None}
        first = next(iter(by_name.values()), ())  # that of a mask
        calls = [
            tuple(self._value(slot, tree, by_name.get(slot.name, first)) for slot in call)
            for call in self.slots
        ]
        return self._calls(calls)

    def _device(self, tree: Mapping[str, Tensor]) -> torch.device:
        """Return the device of the leaves that are no lengths."""
        return next(leaf.device for name, leaf in tree.items() if name not in self.length_names)

    def _value(self, slot: Slot, tree: Mapping[str, Tensor], lengths: Sequence[int]) -> Any:
        if slot.kind == "fixed":
            if isinstance(slot.value, Tensor):
                return slot.value.to(self._device(tree))
            return list(slot.value) if isinstance(slot.value, list) else slot.value
        if slot.kind == "mask":
            if len(set(lengths)) <= 1:
                return None
            return _mask(lengths, slot.value, self._device(tree))
        leaf = tree[slot.name]
        if slot.kind == "list":
            return (
                list(leaf)
                if slot.limit is None
                else [row[:length] for row, length in zip(leaf, lengths, strict=True)]
            )
        if slot.kind == "shared":
            return leaf[0, : lengths[0]]
        return leaf if slot.limit is None else leaf[:, : max(lengths)]


def _slot(who: str, name: str, alone: Any, long: Any, pair: Any) -> Slot:
    """Infer a slot from its values for a short text, a long one, and both together."""
    if isinstance(pair, list) and pair:
        counts = [len(value) for value in (alone, long, pair)]
        if counts == [1, 1, 2] and isinstance(pair[0], Tensor):
            lengths = {len(alone[0]), len(long[0])}
            return Slot(name, "list", max(lengths) if len(lengths) > 1 else None)
        raise unusable(
            who,
            f"expected a list of one tensor per text from `encode_prompt`, got {counts[0]} and"
            f" {counts[2]} values of {type(pair[0]).__name__} for one and two",
        )
    if not isinstance(pair, Tensor):
        return Slot(name, "fixed", value=pair)
    if alone is None:  # there is a mask only if lengths differ
        return Slot(name, "mask", value=pair.dtype)
    if len(alone) == 1 and len(pair) == 2:  # the first axis is that of the texts
        if alone.shape == long.shape:
            return Slot(name, "rows")
        if alone.shape[2:] == long.shape[2:]:
            return Slot(name, "rows", long.shape[1])
    elif alone.shape == long.shape == pair.shape:  # it does not depend on the texts
        return Slot(name, "fixed", value=alone)
    elif len(pair) == len(long) and alone.shape[1:] == long.shape[1:]:  # of the tokens
        return Slot(name, "shared", len(long))
    raise unusable(
        who,
        f"expected one row per text from `encode_prompt`, got shapes {list(alone.shape)},"
        f" {list(long.shape)} and {list(pair.shape)} for a short text, a long one and both",
    )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def _mask(lengths: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 1 for tokens and 0 for padding, [n, longest]."""
    positions = torch.arange(max(lengths), device=device)
    return (positions < to_device(torch.tensor(lengths), device)[:, None]).to(dtype)


def _length_name(slot: Slot) -> str:
    return f"{slot.name}.length"
