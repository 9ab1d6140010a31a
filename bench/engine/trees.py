"""Conditioning as a tree: a tensor, or nested mappings of tensors, each with the prompt axis first.

For example, with P prompts, L tokens and D features:

    {"embeddings": [P, L, D], "pooled": [P, D], "mask": [P, L]}

The names of the leaves are up to the backbone; the engine only selects rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.machine.libraries import Tensor, torch

Tree = Tensor | Mapping[str, Any]
MixRest = Callable[[Tree, Tensor], Tree]
SEPARATOR = "/"  # between the names of a leaf's path


class TreeError(ValueError):
    """An object is not a valid conditioning, or its structure differs from another one's."""


def leaves(tree: Tree) -> dict[str, Tensor]:
    """Return every leaf by its path; a single tensor has the path `""`. Raises TreeError."""
    return dict(_walk(tree, ""))


def _walk(tree: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield path, tree
        return
    if not isinstance(tree, Mapping) or not tree:
        raise TreeError(
            f"The conditioning{f' at {path!r}' if path else ''} is {type(tree).__name__}; it must"
            " be a tensor, or a mapping of names to tensors or mappings, and not empty."
        )
    for name, child in tree.items():
        if not isinstance(name, str) or not name or SEPARATOR in name:
            raise TreeError(f"The conditioning has the name {name!r}; expected a word.")
        yield from _walk(child, f"{path}{SEPARATOR}{name}" if path else name)


def grown(by_path: Mapping[str, Tensor]) -> Tree:
    """Return the tree of leaves by path: the inverse of `leaves`."""
    if set(by_path) == {""}:
        return by_path[""]
    tree: dict[str, Any] = {}
    for path, leaf in by_path.items():
        *branch, name = path.split(SEPARATOR)
        at = tree
        for part in branch:
            at = at.setdefault(part, {})
        at[name] = leaf
    return tree


def mapped(change: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Return the tree with each leaf changed."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    return {name: mapped(change, child) for name, child in tree.items()}


def rows(tree: Tree, chosen: Tensor | slice, on_cpu: Tensor | None = None) -> Tree:
    """Return the tree of the chosen prompts, which may repeat.

    `on_cpu` are the same prompts on the CPU, for leaves on the CPU while `chosen` is on a GPU.
    """
    if isinstance(chosen, slice):
        return mapped(lambda leaf: leaf[chosen], tree)
    other = chosen if on_cpu is None else on_cpu
    return mapped(lambda leaf: leaf[chosen if leaf.device == chosen.device else other], tree)


def count(tree: Tree) -> int:
    """Return the number of prompts of a tree."""
    return len(next(iter(leaves(tree).values())))


def size(tree: Tree) -> int:
    """Return the bytes of all leaves."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(tree).values())


def joined(trees: Sequence[Tree]) -> Tree:
    """Return one tree of all prompts, in order. Raises TreeError if the leaves differ."""
    parts = [leaves(tree) for tree in trees]
    for part in parts[1:]:
        check_alike(parts[0], part)
    return grown({path: torch.cat([part[path] for part in parts]) for path in parts[0]})


def check_alike(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Raise `TreeError` if names, dtypes or lengths behind the prompt axis differ."""
    layouts = [
        {path: (leaf.dtype, tuple(leaf.shape[1:])) for path, leaf in part.items()}
        for part in (first, second)
    ]
    if layouts[0] != layouts[1]:
        raise TreeError(
            f"The conditioning of some prompts is {layouts[0]} and of others {layouts[1]};"
            " every prompt must be padded to the same lengths."
        )


def check_conditioning(tree: Tree, texts: Sequence[str]) -> Tree:
    """Return the conditioning of texts. Raises TreeError unless all its rows are finite."""
    for path, leaf in leaves(tree).items():
        if leaf.is_floating_point():
            finite = torch.isfinite(leaf).view(len(leaf), -1).all(dim=1)
            if not finite.all():
                text, at = texts[int((~finite).nonzero()[0])], f" {path!r}" if path else ""
                raise TreeError(f"The conditioning{at} of the prompt {text[:200]!r} is not finite.")
    return tree
