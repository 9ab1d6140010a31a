"""The report's pictures: which are chosen, and their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from helpers.runs import a_record

from bench.reports.figures.gallery import choose_images
from bench.reports.figures.images import make_thumbnail
from bench.store.decisions import Decisions, as_decisions


def decisions(rows: Iterable[tuple[int, int, int | None, float | None]]) -> Decisions:
    """Decided images: id, label, prediction (None: failed) and margin."""
    return as_decisions(
        [a_record(str(i), label, said, margin=margin) for i, label, said, margin in rows]
    )


def test_the_gallery_takes_what_tells_most() -> None:
    wrong = [(i, 0, 1, 0.1 * i) for i in range(20)]
    right = [(100 + i, i % 4, i % 4, 0.01 * i) for i in range(40)]
    failed = [(200, 2, None, None)]

    def chosen(rows: Sequence[Any], most: int) -> list[int]:
        taken = choose_images(decisions(rows), most).tolist()
        return [rows[place][0] for place in taken]

    ids = chosen([*right, *wrong, *failed], 20)
    assert len(ids) == len(set(ids)) == 20
    assert ids[:3] == [200, 19, 18]  # what failed, then the mistakes of which it was surest
    assert ids[14:] == [100, 101, 102, 103, 104, 105]  # the closest calls, every class among them
    few = chosen([*right, *wrong[:2]], 20)
    assert [i < 100 for i in few] == [True] * 2 + [False] * 18
    everything = [i for i, *_ in [*wrong[::-1], *right]]
    assert chosen([*right, *wrong], 200) == everything
    # A class whose images are all clear still shows three.
    clear = [(300 + i, 9, 9, 5.0) for i in range(8)]
    assert len([i for i in chosen([*right, *clear], 20) if i >= 300]) == 3


def test_thumbnails_are_small_and_tiny_images_keep_their_pixels() -> None:
    from io import BytesIO

    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    kind, content, small = make_thumbnail(Image.fromarray(noise))
    assert kind == "image/webp" and not small and len(content) < 15_000
    shown = Image.open(BytesIO(content))
    assert max(shown.size) == 128
    tiny = Image.fromarray(noise[:8, :8, 0])
    kind, content, small = make_thumbnail(tiny)
    shown = Image.open(BytesIO(content))
    assert kind == "image/png" and small and np.array_equal(np.asarray(shown), noise[:8, :8, 0])
