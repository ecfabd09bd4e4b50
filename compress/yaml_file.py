"""YAML files that people write by hand, read so that every mistake is named with its line and column.

    recipe.yaml:4:12: steps.0.prune.channel_ratio: Input should be less than 1 (it is 1.5)

Numbers are YAML 1.2's (`1e-3` is a float, `yes` a string) and finite, two equal keys are an error, tags run
nothing, and aliases are refused: a few lines of them can stand for more than memory holds.
"""

import math
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from compress import storage
from compress.errors import CompressError, UsageError, nearest

M = TypeVar("M", bound=pydantic.BaseModel)
Place = tuple[int | str, ...]
MISSING = "this key is missing."


@dataclass(frozen=True)
class YamlFile:
    """What a YAML file says, as plain dicts and lists, with the line and column each part came from."""

    name: str
    content: Any
    node: Node | None

    def at(self, place: Place) -> Any:
        """The part of the content at `place`, such as ("steps", 0, "prune"); raises UsageError where there is none."""
        part = self.content
        for key in place:
            try:
                part = part[key]
            except (LookupError, TypeError) as error:
                raise UsageError(self.line(place, MISSING)) from error
        return part

    def where(self, place: Place, key: bool = False) -> str:
        """`recipe.yaml:4:12` of the value at `place`, or of its key; of the nearest part above where it is not there."""
        node, mark = self.node, self.node.start_mark if self.node else None
        for step in place:
            if isinstance(node, MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(step)), None)
            elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = (node.value[step], node.value[step])
            else:
                found = None
            if found is None:
                break
            mark, node = found[0 if key else 1].start_mark, found[1]
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name

    def line(self, place: Place, words: str, key: bool = False) -> str:
        """One line of an error: where, what, and why."""
        path = ".".join(str(part) for part in place)
        return f"{self.where(place, key)}: {path + ': ' if path else ''}{words}"

    def validate(self, model: type[M], place: Place = ()) -> M:
        """The part at `place` as a value of `model`; raises UsageError with one line for each mistake."""
        try:
            return model.model_validate(self.at(place))
        except pydantic.ValidationError as error:
            raise UsageError("\n".join(self._mistake(model, place, mistake) for mistake in _flat(error))) from error

    def _mistake(self, model: type[pydantic.BaseModel], place: Place, mistake: Any) -> str:
        location: Place = mistake["loc"]
        full = (*place, *location)
        if mistake["type"] == "extra_forbidden":
            known = sorted(fields(model, location[:-1]))
            near = nearest(str(location[-1]), known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}."
            return self.line(full, f"there is no such key{hint if known else '.'}", key=True)
        if mistake["type"] == "missing":
            return self.line(full, MISSING)
        if mistake["type"] in ("model_type", "dataclass_type"):
            return self.line(full, f"here stand keys with their values: {', '.join(sorted(fields(model, location)))}.")
        words = str(mistake.get("ctx", {}).get("error", mistake["msg"]))
        given = mistake["input"]
        told = isinstance(given, str | int | float) and mistake["type"] != "value_error"
        return self.line(full, f"{words} (it is {reprlib.repr(given)})" if told else words)


def _flat(error: pydantic.ValidationError, above: Place = ()) -> Iterator[Any]:
    """The mistakes of an error, those found by a validator that validates parts itself in their own places."""
    for mistake in error.errors(include_url=False):
        inner = mistake.get("ctx", {}).get("error")
        place = (*above, *mistake["loc"])
        if isinstance(inner, pydantic.ValidationError):
            yield from _flat(inner, place)
        else:
            yield {**mistake, "loc": place}


def fields(model: Any, place: Iterable[int | str]) -> set[str]:
    """The keys that fit at `place` of a model; none where the model does not say."""
    for step in place:
        if isinstance(step, int):
            continue
        if not hasattr(model, "model_fields") or step not in model.model_fields:
            return set()
        model = _innermost(model.model_fields[step].annotation)
    return set(getattr(model, "model_fields", ()))


def _innermost(annotation: Any) -> Any:
    """The model inside `list[Model]`, `tuple[Model, ...]` or `Model | None`."""
    inner = [part for part in getattr(annotation, "__args__", ()) if part not in (type(None), ...)]
    return _innermost(inner[0]) if inner else annotation


def parse(text: str, name: str) -> YamlFile:
    """Read YAML text; `name` is what errors call it. Raises UsageError naming line and column."""
    try:
        if any(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(text)):
            raise UsageError(f"{name} holds an alias (`*name`); write the value out where it is meant.")
        content = YAML(typ="safe", pure=True).load(text)
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = " ".join(str(error.problem or error.context).removeprefix("but ").split())
        raise UsageError(f"{where}: {problem}.") from error
    except (YAMLError, ValueError) as error:
        raise UsageError(f"{name} is not YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply to be meant.") from error
    file = YamlFile(name, content, node)
    for place in _not_finite(content):
        raise UsageError(file.line(place, "NaN and infinity are no settings; give a number."))
    return file


def _not_finite(content: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(content, float) and not math.isfinite(content):
        yield place
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, part in parts:
        yield from _not_finite(part, (*place, key))


def read(path: Path) -> YamlFile:
    """Read a YAML file; errors call it by its file name."""
    content = storage.read_bytes(path, "file")
    try:
        return parse(content.decode(), path.name)
    except UnicodeDecodeError as error:
        raise CompressError(f"{path} is not a text file: byte {error.start} is not UTF-8. Give a YAML file.") from error


def read_yaml(path: Path, model: type[M]) -> M:
    """Read a YAML file as a value of `model`; raises UsageError with one line for each mistake."""
    return read(path).validate(model)


def dumps(content: Any) -> str:
    """Plain dicts and lists as YAML, in their order."""
    import io

    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False  # type: ignore[assignment]
    yaml.dump(content, stream)
    return stream.getvalue()
