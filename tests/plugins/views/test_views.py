"""The toolkit's views are a square's symmetries, and crops that lie inside the image."""

import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image

from bench.inputs.draws import parse_plan
from bench.running.parts.measure import resolve_views
from bench_plugins.views.pictures import Crops, Flip, Turns8


def test_turns8_are_the_symmetries_of_a_square() -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6)
    found = [np.asarray(view) for view in Turns8().of(Image.fromarray(pixels), 0)]
    wanted = [np.rot90(side, turns) for side in (pixels, pixels[:, ::-1]) for turns in range(4)]
    assert {view.tobytes() for view in found} == {np.asarray(w).tobytes() for w in wanted}
    assert len({view.tobytes() for view in found}) == Turns8().count == 8
    assert np.array_equal(found[0], pixels)
    flipped = [np.asarray(view) for view in Flip().of(Image.fromarray(pixels), 0)]
    assert np.array_equal(flipped[1], pixels[:, ::-1]) and Flip().count == 2


@pytest.mark.parametrize("size", [(40, 24), (1, 1), (16, 16)])
def test_crops_are_inside_and_their_seed_s(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8))
    crops, again, other = (Crops(4).of(image, seed) for seed in (3, 3, 4))
    assert [c.tobytes() for c in crops] == [c.tobytes() for c in again]
    assert {c.size for c in crops} == {(max(1, round(min(size) * 7 / 8)),) * 2}
    if min(size) > 1:
        assert [c.tobytes() for c in crops] != [c.tobytes() for c in other]


@pytest.mark.parametrize("views", ["flip", "turns8", "crop:5", "posterior:3"])
@pytest.mark.parametrize(("plan", "per_view"), [("grid", 1), ("antithetic", 2)])
def test_fewer_draws_than_views_are_refused(plan: str, per_view: int, views: str) -> None:
    """The two draws of a pair share a view."""
    resolved, of_draws = resolve_views(views), parse_plan(plan)
    least = resolved.views.count * per_view
    for draws in range(1, least):
        enough = -(-draws // per_view) >= resolved.views.count
        if not enough:
            with refused(f"--set draws={least}"):
                resolved.of_draws(draws, of_draws)
    turns = resolved.of_draws(least, of_draws)
    assert len(set(turns.tolist())) == resolved.views.count
