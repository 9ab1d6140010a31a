"""Disk cache of the conditioning of prompts, one safetensors file per set of prompts.

Files are written in chunks, so that memory never holds a second copy of a large conditioning. Large
files are memory-mapped, so that the operating system can reclaim the rows that are not in use.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bench.engine import trees
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.trees import Tree, TreeError
from bench.errors import refusing
from bench.machine.cache import cache_dir, is_cached, writing_cached
from bench.machine.environment import installed_distributions
from bench.machine.libraries import Tensor, torch
from bench.machine.stages import stage

# 1: unchecked, 2: one file per prompt, 3: no hash, 4: leaves named by family, 5: SD a tensor,
# 6: a study could write the prompts of one backbone under the key of another, 7: whole weights
CONDITIONING_FORMAT = 8
IN_MEMORY = 256 * 2**20  # bytes up to which a conditioning is read, and not mapped from its file


def embed_prompts(
    backbone: CheckedDenoiser, key: str, texts: Sequence[str], with_null: bool = False
) -> Tree:
    """Return the conditioning of `texts` on the host; a large one is mapped from its file.

    The cache is looked up first, so a backbone that loads its text encoder on demand may never load
    it. Two processes may do this at once: a file appears whole. Raises UserError for a row that is
    not finite, or prompts not padded to the same lengths.

    `key` names everything that a conditioning depends on except the installed packages: fingerprint
    of the weights (of text encoder and tokenizer at least), dtype, version. `with_null` adds the
    null conditioning as the last row.
    """
    path, prompts = conditioning_file(key, texts, with_null), len(texts) + with_null
    tree = read_tree(path)
    if tree is None or trees.count(tree) != prompts:
        with refusing(f"{backbone.who}: ", TreeError, after=""):
            with suppress(OSError):  # a full or read-only disk must not stop a run
                write_tree(path, _encoded(backbone, texts, with_null), prompts)
            tree = read_tree(path)
            if tree is None:
                chunks = list(_encoded(backbone, texts, with_null))
                tree = trees.mapped(lambda leaf: leaf.cpu(), trees.joined(chunks))
    return trees.mapped(torch.clone, tree) if trees.size(tree) <= IN_MEMORY else tree


def conditioning_file(key: str, texts: Sequence[str], with_null: bool = False) -> Path:
    """Return the file of a conditioning of prompts; it may be missing."""
    key = f"{key} and the null" if with_null else key
    content = json.dumps([CONDITIONING_FORMAT, installed_distributions(), key, list(texts)])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return cache_dir("embeddings", digest[:2]) / f"{digest}.safetensors"


def _encoded(backbone: CheckedDenoiser, texts: Sequence[str], with_null: bool) -> Iterator[Tree]:
    at_once = backbone.prompts_at_once
    with stage("Encoding prompts", len(texts), "prompts") as encoding:
        for start in range(0, len(texts), at_once):
            batch = list(texts[start : start + at_once])
            yield trees.check_conditioning(backbone.encode_prompts(batch), batch)
            encoding.done += len(batch)
    if with_null:
        yield trees.check_conditioning(backbone.encode_null(), ["the null"])


ROOT = "conditioning"  # the name of a tree that is a single tensor
DTYPES = {  # names in torch → names in safetensors
    **{f"float{bits}": f"F{bits}" for bits in (64, 32, 16)},
    **{f"int{bits}": f"I{bits}" for bits in (64, 32, 16, 8)},
    **{"bfloat16": "BF16", "uint8": "U8", "bool": "BOOL"},
}


def write_tree(path: Path, chunks: Iterable[Tree], prompts: int) -> None:
    """Write the conditioning of prompts from chunks (OSError, or TreeError if these differ)."""
    with writing_cached(path) as file:
        starts: dict[str, int] = {}
        first: dict[str, Tensor] = {}
        done = 0
        for chunk in map(trees.leaves, chunks):
            if not first:
                # An empty slice keeps names, dtypes and lengths, but no memory.
                first = {name: leaf[:0].cpu() for name, leaf in chunk.items()}
                header, starts = _header(chunk, prompts)
                file.write(header)
            trees.check_alike(first, chunk)
            for name, leaf in chunk.items():
                data = leaf.detach().contiguous().cpu()
                file.seek(starts[name] + done * _row_bytes(leaf))
                file.write(data.flatten().view(torch.uint8).numpy().data)
            done += len(next(iter(chunk.values())))


def read_tree(path: Path) -> Tree | None:
    """Return a conditioning, mapped from its file; None where there is none, or it is damaged."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not is_cached(path, always=True):
        return None
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    return trees.grown({"" if name == ROOT else name: tensors[name] for name in names})


def _row_bytes(leaf: Tensor) -> int:
    return leaf[0].numel() * leaf.element_size()


def _header(first: dict[str, Tensor], prompts: int) -> tuple[bytes, dict[str, int]]:
    """Return the file's header and the position of each leaf's data in the file."""
    entries, offset = {}, 0
    # Wide elements first, so that each leaf is aligned.
    for name, leaf in sorted(first.items(), key=lambda item: -item[1].element_size()):
        length = prompts * _row_bytes(leaf)
        entries[name or ROOT] = {
            "dtype": DTYPES[str(leaf.dtype).removeprefix("torch.")],
            "shape": [prompts, *leaf.shape[1:]],
            "data_offsets": [offset, offset + length],
        }
        offset += length
    text = json.dumps(entries).encode()
    text += b" " * (-(len(text) + 8) % 8)
    starts = {name: 8 + len(text) + entries[name or ROOT]["data_offsets"][0] for name in first}
    return len(text).to_bytes(8, "little") + text, starts
