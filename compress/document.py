"""Values as JSON documents: a kind and a format number first, then the value's own fields.

Reading validates every field against its type and refuses a document of a newer format, so that a file
that was edited, cut short or made by a later version is an error that names the place, never a surprise.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from compress import storage
from compress.errors import CompressError

T = TypeVar("T")

MAKERS = {"compress report": "compress report", "compress measurements": "compress benchmark -o"}
"""What makes the documents that a user hands from one command to the next, by kind."""


@cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def plain(value: object) -> Any:
    """A value as JSON-ready dicts and lists."""
    kind: Any = type(value)
    return _adapter(kind).dump_python(value, mode="json")


def validate(kind: type[T], content: object, what: str) -> T:
    """Turn plain JSON into a value; raises CompressError naming the first wrong field of `what`."""
    whole: Any = kind
    try:
        value: T = _adapter(whole).validate_json(json.dumps(content), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CompressError(f"{what} is not as it should be at {place or 'its top'}: {first['msg']}.") from error
    return value


def dumps(kind: str, format: int, value: object) -> str:
    """The document of a value: `kind`, `format`, then its fields in their order; the same bytes for the same value."""
    return (
        json.dumps({"kind": kind, "format": format, **plain(value)}, indent=1, ensure_ascii=False, allow_nan=False)
        + "\n"
    )


def loads(text: str | bytes, kind: str, format: int, of: type[T], what: str) -> T:
    """Read a document written by `dumps`; `what` names it in errors ("the report reports/main.json").

    Raises CompressError where it is no JSON, of another kind, of a newer format, or has a wrong field.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CompressError(f"{what} is not JSON ({error}); it may be cut short. Make it again.") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        found = content.get("kind") if isinstance(content, dict) else None
        made = f" One is made with: {MAKERS[kind]}" if kind in MAKERS else ""
        raise CompressError(f"{what} is not a {kind}{f' but a {found}' if isinstance(found, str) else ''}.{made}")
    written = content.get("format")
    if not isinstance(written, int) or isinstance(written, bool) or written < 1:
        raise CompressError(f"{what} names no format number; it was not written by compress, or was edited.")
    if written > format:
        raise CompressError(
            f"{what} has format {written}, and this version of compress reads up to {format}. Upgrade compress to read it."
        )
    return validate(of, {key: item for key, item in content.items() if key not in ("kind", "format")}, what)


def write(path: Path, kind: str, format: int, value: object) -> None:
    """Write a value's document to a file, whole or not at all."""
    storage.write_text(path, dumps(kind, format, value))


def read(path: Path, kind: str, format: int, of: type[T]) -> T:
    """Read a value's document from a file."""
    return loads(storage.read_bytes(path, kind), kind, format, of, f"the {kind} {path}")
