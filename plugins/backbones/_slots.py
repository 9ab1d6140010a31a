"""The results of a pipeline's `encode_prompt` as rows of a tree, and back.

Each returned value is a slot. Its kind is learned from how it changes with the number of texts and
their length: a pipeline pads texts to its limit, or to the longest text of a batch. In the latter
case texts are encoded one by one, so that no row depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from bench.errors import UserError

SHORT = "a"
TEXTS_PER_CALL = 16
LONG = "a word " * 1024  # longer than any pipeline takes
Encode = Callable[[list[str]], list[Any]]  # texts → what each call of `encode_prompt` returned


@dataclass(frozen=True)
class Slot:
    """A value that `encode_prompt` returns.

    Attributes:
        name: name of its leaf in the tree.
        kind: `rows`, a tensor with a row per text; `list`, a list of tensors; `shared`, one tensor
            for all texts of one length; `mask`, which is made from the lengths where they differ;
            `fixed`, the same for all texts.
        limit: the largest length, along the first axis after that of the texts; None: all texts
            have the same length.
        value: the value of a fixed slot; the dtype of a mask.
    """

    name: str
    kind: str
    limit: int | None = None
    value: Any = None


class Slots:
    """The slots of a pipeline, learned from how it encodes a short and a long text.

    Raises:
        UserError: a returned tensor has no rows.
    """

    def __init__(self, encode: Encode, who: str) -> None:
        self.encode, self.who = encode, who
        encoded = encode([SHORT]), encode([LONG]), encode([SHORT, LONG])
        if not encoded[0] or len({len(calls) for calls in encoded}) > 1:
            raise UserError(f"{who} cannot be used: it does not encode prompts in the usual way.")
        self.bare = [not isinstance(returned, tuple) for returned in encoded[0]]
        self.slots = [
            [
                self._slot(f"{call}.{place}", *values)
                for place, values in enumerate(zip(*returned, strict=True))
            ]
            for call, returned in enumerate(zip(*map(self._values, encoded), strict=True))
        ]
        self.masked = any(slot.kind == "mask" for slot in self._all())

    def _values(self, returned: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [(v,) if b else v for v, b in zip(returned, self.bare, strict=True)]

    def _calls(self, values: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Undo `_values`."""
        return [v[0] if bare else v for v, bare in zip(values, self.bare, strict=True)]

    def _all(self) -> list[Slot]:
        return [slot for call in self.slots for slot in call]

    def _slot(self, name: str, alone: Any, long: Any, pair: Any) -> Slot:
        if isinstance(pair, list) and pair:
            lengths = {len(alone[0]), len(long[0])}
            return Slot(name, "list", max(lengths) if len(lengths) > 1 else None)
        if not isinstance(pair, Tensor):
            return Slot(name, "fixed", value=pair)
        if alone is None:
            return Slot(name, "mask", value=pair.dtype)
        if len(alone) == 1 and len(pair) == 2:
            if alone.shape == long.shape:
                return Slot(name, "rows")
            if alone.shape[2:] == long.shape[2:]:
                return Slot(name, "rows", long.shape[1])
        elif alone.shape == long.shape == pair.shape:
            return Slot(name, "fixed", value=alone)
        elif alone.shape[1:] == long.shape[1:]:
            return Slot(name, "shared", len(long))
        raise UserError(
            f"{self.who}: `encode_prompt` returns tensors of shapes {list(alone.shape)},"
            f" {list(long.shape)} and {list(pair.shape)} for a short text, a long one and both;"
            " a row for each text is wanted"
        )

    def tree(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return a row for each text in every leaf, padded with zeros to the largest length.

        Texts that are all padded to the same length are encoded together.
        """
        alike = all(s.kind == "fixed" or (s.kind, s.limit) == ("rows", None) for s in self._all())
        at_once = TEXTS_PER_CALL if alike else 1
        groups = [list(texts[n : n + at_once]) for n in range(0, len(texts), at_once)]
        return self.rows([self.encode(group) for group in groups], groups)

    def rows(self, encoded: Sequence[list[Any]], groups: Sequence[list[str]]) -> dict[str, Tensor]:
        """Return a row for each text in every leaf, from the encodings of groups of texts."""
        rows: dict[str, list[Tensor]] = {}
        for returned, texts in zip(encoded, groups, strict=True):
            values = [value for call in self._values(returned) for value in call]
            for slot, value in zip(self._all(), values, strict=True):
                if slot.kind in ("rows", "list", "shared"):
                    each_row = [value] if slot.kind == "shared" else value
                    for row, text in zip(each_row, texts, strict=True):
                        self._keep(slot, row, text, rows)
        return {name: torch.stack(parts) for name, parts in rows.items()}

    def negative(self, plain: list[Any], guided: list[Any]) -> list[Any]:
        """Return the plain encoding with the negative prompt's values in place of the prompt's.

        They are in the same order, at places that are empty without guidance.
        """
        calls = []
        for own, both in zip(self._values(plain), self._values(guided[: len(plain)]), strict=True):
            filled = [place for place, value in enumerate(own) if not _is_empty(value)]
            added = [v for place, v in enumerate(both) if place not in filled and not _is_empty(v)]
            values = list(own)
            if len(added) == len(filled):
                for place, value in zip(filled, added, strict=True):
                    values[place] = value
            calls.append(tuple(values))
        return self._calls(calls)

    def _keep(self, slot: Slot, row: Tensor, text: str, rows: dict[str, list[Tensor]]) -> None:
        if slot.limit is not None:
            if (spare := slot.limit - len(row)) < 0:
                raise UserError(
                    f"{self.who} takes {slot.limit} tokens, and the prompt {text[:80]!r} has"
                    f" {len(row)}."
                )
            length = torch.tensor(len(row), device=row.device)
            rows.setdefault(_length(slot), []).append(length)
            row = F.pad(row, (0, 0) * (row.ndim - 1) + (0, spare))
        rows.setdefault(slot.name, []).append(row)

    def lengths(self, tree: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
        """Return the lengths of each text; this waits for the device if lengths can differ."""
        leaves = [tree[_length(slot)] for slot in self._all() if slot.limit is not None]
        if not leaves:
            return [()] * len(next(iter(tree.values())))
        return [tuple(row) for row in torch.stack(leaves, dim=1).tolist()]

    def alike(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """Return the lengths that must be equal for texts in one call."""
        varying = [slot for slot in self._all() if slot.limit is not None]
        return (
            ()
            if self.masked
            else tuple(
                length for length, slot in zip(lengths, varying, strict=True) if slot.kind != "list"
            )
        )

    def returned(self, tree: Mapping[str, Tensor], lengths: list[tuple[int, ...]]) -> list[Any]:
        """Return the results of the calls of `encode_prompt` for the rows of a tree."""
        columns = iter(zip(*lengths, strict=True))
        by_name = {s.name: next(columns) for s in self._all() if s.limit is not None}
        every = next(iter(by_name.values()), ())
        calls = [
            tuple(self._value(slot, tree, by_name.get(slot.name, every)) for slot in call)
            for call in self.slots
        ]
        return self._calls(calls)

    def _value(self, slot: Slot, tree: Mapping[str, Tensor], lengths: Sequence[int]) -> Any:
        if slot.kind == "fixed":
            if isinstance(slot.value, Tensor):
                return slot.value.to(next(iter(tree.values())).device)
            return list(slot.value) if isinstance(slot.value, list) else slot.value
        if slot.kind == "mask":
            return _mask(lengths, slot.value, next(iter(tree.values())).device)
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


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def _mask(lengths: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if len(set(lengths)) <= 1:
        return None
    places = torch.arange(max(lengths), device=device)
    return (places < torch.tensor(lengths, device=device)[:, None]).to(dtype)


def _length(slot: Slot) -> str:
    return f"{slot.name}.length"
