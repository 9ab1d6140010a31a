"""The identity: one hash for one content, and no field that old runs did not have."""

from typing import Any

from helpers.runs import a_manifest

from bench.store.formats.identity import Identity, digest, prompts_digest


def test_the_order_of_the_content_does_not_matter() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})


def test_an_identity_is_hashed_as_it_was_written() -> None:
    written = a_manifest(["s"]).identity.plain()
    assert digest(Identity.model_validate(written)) == digest(written)
    assert "control" not in written and "calibrated" not in written  # absent, not null


def test_an_unknown_field_of_a_later_version_is_part_of_it() -> None:
    written: Any = a_manifest(["s"]).identity.plain()
    later = {**written, "scoring": {**written["scoring"], "later": 1}}
    assert digest(Identity.model_validate(later)) == digest(later) != digest(written)


def test_prompts_are_their_texts_classes_and_order() -> None:
    prompts = [("a cat", 0), ("a dog", 1)]
    others = [
        [("a dog", 1), ("a cat", 0)],
        [("a cat", 0), ("a dog", 0)],
        [("a cat", 0), ("a hog", 1)],
    ]
    assert len({prompts_digest(prompts), *map(prompts_digest, others)}) == 4
