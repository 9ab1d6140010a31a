"""A stored run's images, read in this process: one of its own takes seconds to start."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pytest

from bench.machine.offline import offline
from bench.reports.figures import images
from bench.reports.figures.images import Thumbnail, answer_request, decode_answer, load


class Opened:
    """The data of one run, in the place of the process that has limits."""

    def __init__(self, request: str) -> None:
        self._request = json.loads(request)

    @cached_property
    def _data(self) -> Any:
        return load(self._request["settings"])

    def ask(self, sample_ids: list[str], patience: float) -> dict[str, Thumbnail]:
        with offline():
            pictures = answer_request(self._data, sample_ids, self._request["side"])
        return decode_answer(json.loads(json.dumps(pictures)))


@pytest.fixture(scope="module", autouse=True)
def opened_here() -> Iterator[None]:
    """Open data in this process, for the tests of a module.

    A `conftest.py` imports it for all modules beside it; a module that wants the process itself, as
    `tests/reports/test_images.py` does, has a fixture of this name.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_Process", Opened)
        yield
