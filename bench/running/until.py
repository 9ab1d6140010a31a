"""`--until`: score images in random order and stop when they answer a question."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.contracts.strategy import Floats
from bench.discovery.guard import notify_plugins
from bench.discovery.loading import load_plugins
from bench.errors import StoreError, UserError, warn_user
from bench.inputs.split import Split
from bench.inputs.subsets import shuffle_samples
from bench.stats.metrics.comparison import check_comparable
from bench.stats.sequential import stopping_rules
from bench.stats.sequential.stopping_rules import Results, StoppingRule
from bench.store.folder import find_run, missing_samples
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import Manifest
from bench.store.questions import QuestionAnswer, Verdict, keep_question, read_questions
from bench.store.runs import read_run
from bench.store.writing import RunFolder

CHECK_SECONDS = 2.0  # minimum time between two `question_checked` events


@dataclass
class Until:
    """Ends a run when its images, in random order, answer a question.

    Only the prefix of the random order that is completely decided counts, so that the answer does
    not depend on the order in which workers finish images.
    """

    question: StoppingRule
    order: Sequence[str]  # ids in random order, without images that cannot be compared
    total: int  # number of images of the split
    baseline: Mapping[str, bool] | None = None
    """Whether the other run is right, by id; None if the question needs no other run."""
    weights: Mapping[str, float] | None = None  # None for equal weights
    post_hoc: bool = field(default=False, init=False)
    _right: dict[str, bool] = field(default_factory=dict, init=False)
    _verdict: Verdict = field(default="open", init=False)
    _n: int = field(default=0, init=False)  # number of images in the complete prefix
    _checked: int = field(default=0, init=False)  # number of images at the last check
    _deciding: int = field(default=0, init=False)  # number of images that the verdict needs
    _next_event: float = field(default=0.0, init=False)  # time of the next event, as `monotonic`

    def resume(self, folder: Path, manifest: Manifest) -> Manifest:
        """Take up a stored run; return the manifest of the images that are asked for."""
        if missing_samples(folder, manifest, False) is None:
            return manifest
        with suppress(StoreError):  # raised again if anything must be scored
            self.begin(folder, manifest, [])
        return self._narrowed(manifest)

    def begin(self, folder: Path, manifest: Manifest, outstanding: list[str]) -> list[str]:
        """Begin to score; return the outstanding images that are needed, in scoring order."""
        stored = read_decisions(folder, manifest)
        rows = zip(stored.sample_ids.to_pylist(), stored.correct, stored.failed, strict=True)
        # Also those stored since `resume` or without a manifest. Failed images are scored again.
        self._right |= {name: bool(right) for name, right, failed in rows if not failed}
        self.post_hoc = bool(self._right)
        self._advance()
        self._record_question(folder, manifest)
        left = set(outstanding).intersection(self._narrowed(manifest).samples)
        return [sample_id for sample_id in self.order if sample_id in left]

    def ends(self, sample_id: str, right: bool) -> bool:
        """Add one image's result; return whether the run ends here."""
        self._right[sample_id] = right
        if self._advance() and self._verdict != "open":
            return True
        if time.monotonic() > self._next_event:
            p = stopping_rules.current_p(self.question, self._prefix) if self._n else 1.0
            state = {"question": self.question.text, "images": self._n, "p": p}
            notify_plugins(load_plugins().manager, "question_checked", **state)
            self._next_event = time.monotonic() + CHECK_SECONDS
        return False

    def end(self, folder: RunFolder, manifest: Manifest) -> tuple[Manifest, QuestionAnswer]:
        """Limit a run to the images that count, and return its manifest and its answer."""
        manifest = self._narrowed(manifest)
        folder.narrow(manifest.samples)
        return manifest, self._record_answer(folder.path, manifest)

    def answer_stored(self, folder: Path, manifest: Manifest) -> QuestionAnswer:
        """Return the answer of a decided run; warn if its folder cannot keep it."""
        try:
            self._record_question(folder, manifest)
            return self._record_answer(folder, manifest)
        except StoreError as error:
            warn_user(f"The answer to --until is not kept: {error}")
            return self.answer

    def _advance(self) -> bool:
        """Extend the complete prefix; return whether it grew."""
        before = self._n
        for sample_id in self.order[before:]:
            if sample_id not in self._right:
                break
            self._n += 1
        if self._n == before:
            return False
        due = self._n >= self._checked + max(1, self._checked // 100) or self._n == len(self.order)
        if self._verdict == "open" and due:  # a check reads the whole prefix, so only every 1 %
            self._checked = self._n
            self._verdict, self._deciding = stopping_rules.decided_at(self.question, self._prefix)
        return True

    @property
    def _prefix(self) -> Results:
        ids = self.order[: self._n]

        def column(values: Mapping[str, float] | None) -> Floats | None:
            return None if values is None else np.array([values[i] for i in ids], dtype=float)

        right = np.array([self._right[i] for i in ids], dtype=float)
        other, weights = map(column, (self.baseline, self.weights))
        largest = max(self.weights.values()) if self.weights else 1.0
        return Results(right, other, self.total, weights, largest)

    @property
    def answer(self) -> QuestionAnswer:
        """Answer of the images in the complete prefix."""
        result = stopping_rules.answer(self.question, self._prefix)
        return result.model_copy(update={"post_hoc": True}) if self.post_hoc else result

    def _narrowed(self, manifest: Manifest) -> Manifest:
        """Return a manifest that asks only for the images that the answer needs.

        It is unchanged while the question is open and images are left. If none is left, it asks for
        all that can be compared.
        """
        if self._verdict == "open" and self._n < len(self.order):
            return manifest
        return manifest.narrowed(self.order[: self._deciding])

    def _record_question(self, folder: Path, manifest: Manifest) -> None:
        """Write the question into the run's folder before its next image is scored."""
        keep_question(folder, manifest, self.question.text, len(self._right))
        subject = self.question.subject
        self.post_hoc = all(
            entry.decided_before > 0
            for entry in read_questions(folder, manifest)
            if stopping_rules.parse_question(entry.question).subject == subject
        )

    def _record_answer(self, folder: Path, manifest: Manifest) -> QuestionAnswer:
        """Write the answer into the run's folder and return it."""
        result = self.answer
        keep_question(folder, manifest, self.question.text, len(self._right), result)
        return result


def until_of(question: StoppingRule, split: Split, manifest: Manifest, results: str) -> Until:
    """Return what ends a run on a split when its images answer a question (UserError)."""
    order = shuffle_samples(split.sample_ids, split.fingerprint)
    weights = None
    if question.metric == "balanced_accuracy":
        if split.items is not None:
            raise UserError(
                "--until: the texts of an item are its own, so that items have no classes and no"
                " balanced accuracy. Ask for the accuracy."
            )
        labels = np.asarray(split.labels)
        per_class = stopping_rules.class_weights(
            np.bincount(labels, minlength=len(split.classes)).astype(float)
        )
        weights = dict(zip(split.sample_ids, per_class[labels].tolist(), strict=True))
    if question.run is None:
        return Until(question, order, len(order), None, weights)
    path = find_run(question.run, results, exact=True)
    other = read_run(path)
    if other.manifest.run_id == manifest.run_id:
        raise UserError(f"--until: {question.run} is this run itself. Name another one.")
    check_comparable(manifest, other.manifest)
    decided = other.decided()
    baseline, n = decided.right_by_id(), len(decided.right_in(order))
    if n < len(baseline):
        raise UserError(
            f"--until: {question.run} has decided {len(baseline):,} of {len(order):,} images, but"
            " these are not the first in random order. Complete it, or stop it with --until too."
        )
    return Until(question, order[:n], len(order), baseline, weights)
