"""Remember what a plugin's class answers, so that the same question does not import it again.

An answer is stored under everything it depends on: the spec, the question, the sources of the
toolkit and of the plugin, and the versions of all installed distributions. It is used only while
the class's module is not imported. A class in memory is asked, so a program that changes one gets
the answers of what it has. Weights in a package can come with answers, in a file beside their
folder; `tools/answers.py` writes it for those of the toolkit.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from bench.contracts.specs import Spec
from bench.discovery.loading import load_plugins
from bench.discovery.sources import has_sources, source_hashes
from bench.errors import recorded_warnings, warn_user
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.environment import installed_distributions

ANSWERS_FOLDER = "answers"  # in the cache
ANSWERS_SUFFIX = ".answers.json"  # suffix of the file beside a folder of weights
T = TypeVar("T")

_asked: set[str] = set()  # modules that this process imported because an answer was missing


def remember(spec: Spec, question: str, ask: Callable[[], T], shipped: Path | None = None) -> T:
    """Return the stored answer to a question about a spec's class, or else that of `ask`.

    An answer consists of JSON values; another one is not stored. Its warnings are issued again.
    `shipped` is a file of answers that come with the weights. Errors are not stored.
    """
    module = spec.target.partition(":")[0]
    imported = module in sys.modules
    if (imported and module not in _asked) or (path := _place(spec, question)) is None:
        return ask()
    if not imported:
        cached = json.loads(read_cached(path) or "null")
        for entry in (cached, read_shipped(shipped, spec).get(question)):
            if entry is not None:
                for text in entry["warnings"]:
                    warn_user(text)
                answer: T = entry["answer"]
                return answer
        _asked.add(module)
    with recorded_warnings() as warnings:
        answer = ask()
    entry = {"question": question, "answer": answer, "warnings": warnings}
    with suppress(TypeError, ValueError):  # not JSON
        if json.loads(text := json.dumps(entry)) == entry:
            write_cached(path, text)
    return answer


def forget(spec: Spec, question: str) -> None:
    """Drop the stored answer to a question, which turned out to be false."""
    if path := _place(spec, question):
        write_cached(path, "null")


def read_shipped(file: Path | None, spec: Spec) -> Mapping[str, Any]:
    """Return question → entry of the answers that come with weights, if they are for this spec."""
    if file is None or not file.is_file():
        return {}
    content = json.loads(file.read_text("utf-8"))
    entries: Mapping[str, Any] = content["answers"]
    return entries if content["spec"] == [spec.name, spec.version] else {}


def _place(spec: Spec, question: str) -> Path | None:
    """Return where an answer is stored; None if another class could answer under the same key."""
    plugins, text = load_plugins(), repr(spec)
    owner = (plugins.datasets if spec.kind == "dataset" else plugins.backbones).owner(spec.name)
    package = spec.target.partition(":")[0].partition(".")[0]
    if owner is None or " at 0x" in text or not has_sources(package):
        return None
    code = source_hashes(plugins, [owner])
    state = json.dumps([text, question, code, installed_distributions(), sys.version])
    return cache_dir(ANSWERS_FOLDER) / f"{hashlib.sha256(state.encode()).hexdigest()}.json"
