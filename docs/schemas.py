"""Generate a JSON schema and a table of fields for each document that is stored or printed.

Both are generated from the models. The description of a field is the comment in its line, the
docstring below it, or its entry under `Attributes` in the docstring of the class.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import griffe
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from bench.discovery.queries import metric_specs
from bench.recordings.learn import Learned
from bench.reports.inventory import InventoryRow
from bench.reports.leaderboard.rows import LeaderboardRow, ReportedResult
from bench.reports.study.documents import StudyReport
from bench.running.classify import Answer
from bench.running.estimate import Plan
from bench.running.parts.declaration import help_of
from bench.running.parts.settings import RunConfig
from bench.stats.calibration.agreement import Audit
from bench.stats.inference.power import Power
from bench.stats.metrics.comparison import Comparison
from bench.stats.metrics.summarise import Statistics
from bench.store.calibrations import Calibration
from bench.store.formats.documents import Manifest, StoredConfig
from bench.store.formats.fields import MAX_INT, MetricFields, insert_after
from bench.store.formats.journal import Record
from bench.store.questions import AskedQuestion
from bench.store.runs import TestSetUse
from bench.store.studies import Study
from bench.store.summary import Summary, Swept

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of document.

    Attributes:
        name: name of the schema's file, without its ending.
        where: the file that has such a document, or the command that prints it.
        model: class of the document.
    """

    name: str
    where: str
    model: type


KINDS = {
    "The files of a run": (
        Kind("manifest", "`manifest.json`", Manifest),
        Kind("sample", "A line of `samples.jsonl`", Record),
        Kind("summary", "`summary.json`, `bench run --json`", Summary),
        Kind("question", "A line of `questions.jsonl`", AskedQuestion),
        Kind("swept", "A line of `audit.jsonl`", Swept),
        Kind("calibration", "`calibration.json`", Calibration),
    ),
    "Other files": (
        Kind("study", "`study.json`", Study),
        Kind("look", "A line of `looks.jsonl`", TestSetUse),
        Kind("reported", "An entry of `reported.json`", ReportedResult),
    ),
    "What commands print": (
        Kind("run-row", "A row of `bench runs --json`", InventoryRow),
        Kind("leaderboard-row", "A row of `bench leaderboard --json`", LeaderboardRow),
        Kind("comparison", "`bench compare --json`", Comparison),
        Kind("statistics", "`bench show --statistics --json`: `statistics`", Statistics),
        Kind("study-report", "`bench study --json`", StudyReport),
        Kind("learned", "`bench learn --json`", Learned),
        Kind("audit", "`bench run --audit N --json`: `audit`", Audit),
        Kind("answer", "An image of `bench classify --json`", Answer),
        Kind("plan", "`bench run --dry-run --json`", Plan),
        Kind("power", "`bench power --json`", Power),
    ),
}


def schemas() -> Iterator[tuple[str, str]]:
    """Yield the file name and the text of each schema."""
    for kinds in KINDS.values():
        for kind in kinds:
            text = json.dumps(schema_of(kind), indent=1, ensure_ascii=False)
            yield f"{kind.name}.schema.json", f"{text}\n"


@cache
def schema_of(kind: Kind) -> Schema:
    """Return the JSON schema of a kind of document."""
    adapter = TypeAdapter[Any](kind.model)
    made = adapter.json_schema(mode="serialization", schema_generator=_WithDocstrings)
    return {"$schema": DIALECT, **made, "title": kind.name}


def tables() -> str:
    """Return the page as Markdown: the fields of every document, then those of their parts."""
    lines: list[str] = []
    parts: dict[str, Schema] = {}
    for title, kinds in KINDS.items():
        lines += [f"## {title}", ""]
        for kind in kinds:
            schema = schema_of(kind)
            parts |= schema.get("$defs", {})
            lines += [f"### {kind.where} {{#{kind.name}}}", "", schema["description"], ""]
            lines += [f"[JSON schema](schemas/{kind.name}.schema.json)", "", *_fields(schema), ""]
    lines += ["## Parts", "", "Objects that are part of the documents above.", ""]
    for name, part in sorted(parts.items()):
        if "properties" in part:
            lines += [f"### {name} {{#{_anchor(name)}}}", "", part["description"], ""]
            lines += [*_fields(part), ""]
    return "\n".join(lines)


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", [])
    if not schema["properties"]:
        return
    yield "| field | type | description |"
    yield "|---|---|---|"
    for name, field in schema["properties"].items():
        mark = "" if name in required else " *"
        text = " ".join(field.get("description", "").split()).replace("|", "\\|")
        yield f"| `{name}`{mark} | {type_in_words(field)} | {text} |"


def type_in_words(field: Schema) -> str:
    """Return the type of a field in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    if "anyOf" in field:
        return " or ".join(map(type_in_words, field["anyOf"]))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if kind == "array" and "prefixItems" in field:
        return f"[{', '.join(map(type_in_words, field['prefixItems']))}]"
    if kind == "array":
        return f"list of {type_in_words(field['items'])}" if field.get("items") else "list"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"object of {type_in_words(values)}" if isinstance(values, dict) else "object"
    if kind in ("integer", "number"):
        return f"{kind}{_range(field)}"
    return {"string": "text", "boolean": "true or false", "null": "null"}.get(str(kind), "anything")


def _range(field: Schema) -> str:
    low, high = field.get("minimum", -MAX_INT), field.get("maximum", MAX_INT)
    if high < MAX_INT:
        return f" {low:g} to {high:g}"
    return f" ≥ {low:g}" if low > -MAX_INT else ""


def _anchor(name: str) -> str:
    return f"part-{name.lower()}"


class _WithDocstrings(GenerateJsonSchema):
    """Generates schemas with the documentation of the fields as descriptions."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Omit titles, which would repeat the names of the fields."""
        return False

    def ser_schema(self, schema: Any) -> Schema | None:
        """Ignore the serializer of documents with metrics, which only orders their fields."""
        return None

    def model_schema(self, schema: Any) -> Schema:
        """Return the schema of a pydantic model."""
        made, cls = super().model_schema(schema), schema["cls"]
        return _described(_with_metrics(made, cls) if issubclass(cls, MetricFields) else made, cls)

    def typed_dict_schema(self, schema: Any) -> Schema:
        """Return the schema of a typed dictionary."""
        return _described(super().typed_dict_schema(schema), schema["cls"])


COMMON = {
    "accuracy": "Share of images whose prediction is right.",
    "backbone": "Backbone that scored.",
    "created": "Time of creation, in ISO 8601.",
    "dataset": "Dataset that was scored.",
    "disagreements": "Number of images decided differently from the full sweep.",
    "dtype": "Data type of the computation.",
    "fingerprint": "Hash of all images and labels of the split.",
    "fitted": "Report of a backbone that learned on its fit.",
    "format": "Format version.",
    "images": "Number of images.",
    "n": "Number of images.",
    "name": "Registered name.",
    "replayed_from": "For a replay, the run whose errors were replayed.",
    "run_id": "Id of the run.",
    "split": "Name of the split.",
    "strategy": "Strategy that decided.",
    "version": "Version of the definition, raised when results change.",
}  # descriptions of fields that have none of their own, by name


def _with_metrics(schema: Schema, cls: type[MetricFields]) -> Schema:
    """Return the schema of a document with a field for each metric of summaries."""
    metrics: Schema = {}
    required = [*schema.get("required", [])]
    for name, metric in metric_specs().items():
        if name in schema["properties"] or not metric.in_summaries:
            continue
        low, high = metric.range
        type_: Schema = {"type": "number", "minimum": low, "maximum": high}
        if cls.every_run and metric.required:
            required.append(name)
        else:
            type_ = {"anyOf": [type_, {"type": "null"}], "default": None}
        metrics[name] = {**type_, "description": metric.summary}
    properties = insert_after(schema["properties"], "accuracy_ci95", metrics)
    return {**schema, "properties": properties, "required": required}


def _common(cls: type, name: str) -> str | None:
    if cls is StoredConfig:
        return help_of(RunConfig.model_fields[name])
    if name.endswith("_ci95"):
        return f"95 % interval of `{name.removesuffix('_ci95')}`."
    return COMMON.get(name)


def _described(schema: Schema, cls: type) -> Schema:
    names = {
        name: field.serialization_alias or name
        for name, field in getattr(cls, "model_fields", {}).items()
    }
    for name, documentation in _field_texts(cls).items():
        if (field := schema["properties"].get(names.get(name, name))) is not None:
            words = " ".join(documentation.split())
            field.setdefault("description", words[:1].upper() + words[1:])
    for name, field in schema["properties"].items():
        if "description" not in field and (text := _common(cls, name)):
            field["description"] = text
    return {**schema, "description": _summary(cls)}


def _summary(cls: type) -> str:
    """Return the docstring of a class without its `Attributes`."""
    texts = [part.value for part in _sections(cls) if part.kind is griffe.DocstringSectionKind.text]
    return "\n\n".join(texts)


def _field_texts(cls: type) -> Mapping[str, str]:
    """Return the documentation of each field, including inherited ones."""
    field_texts: dict[str, str] = {}
    for base in reversed(inspect.getmro(cls)):
        if not base.__module__.startswith("bench."):
            continue
        for part in _sections(base):
            if part.kind is griffe.DocstringSectionKind.attributes:
                field_texts |= {entry.name: entry.description for entry in part.value}
        field_texts |= _comments(base)
        for name, member in _source(base).members.items():
            if member.is_attribute and member.docstring:
                field_texts[name] = member.docstring.value
    return field_texts


def _comments(cls: type) -> dict[str, str]:
    """Return the comment in the line of each field of a class, as a sentence."""
    lines = _source(cls).lines
    first = _source(cls).lineno
    texts = {}
    for name, member in _source(cls).members.items():
        if member.is_attribute and member.endlineno is not None:
            _, mark, text = lines[member.endlineno - first].partition("  # ")
            if mark:
                texts[name] = text if text.endswith(".") else f"{text}."
    return texts


def _sections(cls: type) -> list[Any]:
    docstring = _source(cls).docstring
    return docstring.parsed if docstring else []


def _source(cls: type) -> Any:
    return _package()[f"{cls.__module__.removeprefix('bench.')}.{cls.__qualname__}"]


@cache
def _package() -> Any:
    return griffe.GriffeLoader(docstring_parser=griffe.Parser.google).load("bench")
