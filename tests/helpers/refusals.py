"""What tests ask of a refusal: its kind, and the subject that it names. A page shows its words.

The subject is what the user must change: an option, a variable, a file and its line, a column, a
plugin. Words may change without a test; `pytest --refusals PAGE` writes them all, by subject.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.errors import BenchWarning, UserError

Row = tuple[str, str, str]
"""Subject, kind and sentence."""
rows: set[Row] = set()
"""What this process was refused with."""
_PLACES = re.compile(rf"{re.escape(tempfile.gettempdir())}/[^\s'\":,;)]*/(?=[^/\s])")


def names(text: str, subjects: Iterable[object], kind: str) -> bool:
    """Tell whether a refusal names each of its subjects and says more; the page will have it."""
    words = [str(subject) for subject in subjects]
    rest = text.removeprefix("Error: ")
    for word in filter(None, words):
        rest = rest.replace(word, " ")
    named = all(word in text for word in words) and bool(re.search(r"[^\W\d]{2,}", rest))
    if named:
        rows.add((_shown(" · ".join(words)), kind, _shown(text)))
    return named


def _shown(text: str) -> str:
    return _PLACES.sub("…/", " ".join(text.split()))


@contextmanager
def refused(
    *subjects: object, kind: type[BaseException] | tuple[type[BaseException], ...] = UserError
) -> Iterator[pytest.ExceptionInfo[Any]]:
    """Check that the block is refused with an exception of a kind that names the subjects."""
    with pytest.raises(kind) as caught:
        yield caught
    assert names(str(caught.value), subjects, caught.type.__name__), (subjects, caught.value)


@contextmanager
def warned(
    *subjects: object, kind: type[Warning] = BenchWarning
) -> Iterator[pytest.WarningsRecorder]:
    """Check that the block warns and names the subjects."""
    with pytest.warns(kind) as caught:
        yield caught
    texts = [str(warning.message) for warning in caught]
    assert any(names(text, subjects, kind.__name__) for text in texts), (subjects, texts)


def page(rows: Iterable[Row]) -> str:
    """Return all refusals in Markdown, by subject."""
    subjects: dict[str, list[str]] = defaultdict(list)
    for subject, kind, text in sorted(rows):
        subjects[subject].append(f"- {kind}: {text}")
    parts = [f"## {subject or '(none)'}\n\n" + "\n".join(subjects[subject]) for subject in subjects]
    return "\n\n".join(["# What the tests were refused with", *parts]) + "\n"
