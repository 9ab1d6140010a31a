"""Encoded prompts on their way from one worker's cache folder to another's.

They are files with the same names everywhere: a name is the hash of all that decides what is in it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from bench.machine.cache import is_kept, keeping
from bench.running.executors.messages import Texts
from bench.running.scorers.choose import kind_of

if TYPE_CHECKING:
    from bench.running.prepared import Prepared


def lacks_texts(prepared: Prepared) -> bool:
    """Tell whether prompts would have to be encoded here."""
    return not all(is_kept(file) for file in kind_of(prepared.resolved).text_files(prepared))


def kept_texts(prepared: Prepared) -> Texts:
    """Return the prompts that are encoded here; large ones are read when they are sent."""
    files = (
        file
        for file in kind_of(prepared.resolved).text_files(prepared)
        if is_kept(file, always=True)
    )
    return {file.name: np.asarray(np.memmap(file, np.uint8, "r")) for file in files}


def keep_texts(prepared: Prepared, texts: Texts) -> None:
    """Keep prompts that are encoded elsewhere; those that the disk does not take are made here."""
    for file in kind_of(prepared.resolved).text_files(prepared):
        if file.name in texts:
            with suppress(OSError), keeping(file, durable=False) as opened:
                opened.write(texts[file.name].data)
