"""The Croissant description of an exported error dataset (MLCommons, Croissant 1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TYPES = {
    "string": "sc:Text",
    "float": "sc:Float",
    "double": "sc:Float",
    "int32": "sc:Integer",
    "int64": "sc:Integer",
}  # parquet's type → schema.org's
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "recordSet": "cr:recordSet",
    "field": "cr:field",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "source": "cr:source",
    "extract": "cr:extract",
    "column": "cr:column",
    "fileSet": "cr:fileSet",
    "fileObject": "cr:fileObject",
    "includes": "cr:includes",
}


def croissant(
    name: str, description: str, licence: str | None, created: str, errors: Mapping[str, str]
) -> dict[str, Any]:
    """Return the JSON-LD of an error dataset.

    Args:
        name: id of the run.
        description: one sentence.
        licence: an SPDX id, or None where none was stated.
        created: when it was recorded, ISO 8601.
        errors: column of `errors/*.parquet` → parquet's type.
    """
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": description,
        "datePublished": created,
        "distribution": [_files("errors", "errors/*.parquet", "application/vnd.apache.parquet")],
        "recordSet": [_records("errors", errors)],
    }
    return content | ({"license": f"https://spdx.org/licenses/{licence}"} if licence else {})


def _files(name: str, pattern: str, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "encodingFormat": kind,
        "includes": pattern,
    }


def _records(name: str, columns: Mapping[str, str]) -> dict[str, Any]:
    fields: Sequence[dict[str, Any]] = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "dataType": _TYPES[kind],
            "source": {"fileSet": {"@id": f"{name}-files"}, "extract": {"column": column}},
        }
        for column, kind in columns.items()
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}
