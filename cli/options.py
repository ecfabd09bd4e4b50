"""Options that several commands share, and options made from a step's own fields."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
import pydantic
from pydantic.fields import FieldInfo

from compress.demand import DEMANDS
from compress.errors import UsageError, unknown
from compress.limit import BOUNDS, LIMITED
from compress.pipeline import Step

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Step)

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, also for an error.")
SEED = click.IntRange(0, 2**32 - 1)
seed = click.option("--seed", type=SEED, metavar="N", default=0, show_default=True, help="Fixes every random choice.")
device = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, or cuda:N.")
threads = click.option(
    "--threads", type=click.IntRange(1), help="Processor threads to use. [default: all cores; 1 for timing]"
)
network = click.option(
    "--network", metavar="FILE:FUNCTION", help="The function a network of your own comes from; given each time."
)
data = click.option(
    "--data", metavar="NAME[:PATH]", help="digits, cifar10, cifar100, fashion-mnist, npz:FILE, imagefolder:FOLDER."
)
data_folder = click.option(
    "--data-folder", type=FOLDER, help="Where cifar10, cifar100 and fashion-mnist lie or are downloaded to."
)
split_seed = click.option(
    "--split-seed",
    type=SEED,
    metavar="N",
    default=0,
    show_default=True,
    help="Cuts validation and calibration images from the train split.",
)
calibration = click.option(
    "--calibration", type=FOLDER, help="Folder of unlabelled images to calibrate on, instead of training images."
)
out = click.option("-o", "--output", "output_file", type=FILE, required=True, help="File to write; never the input.")
runtime = click.option(
    "--runtime", help="What opens the file; torch:compile+bf16 also says how. [default: by its ending]"
)
recording = click.option(
    "-o", "--output", "output_file", type=FILE, help="Write the measurements as JSON, for compress report."
)


def limit_options(command: F) -> F:
    """An option for every limit that has one, such as --max-size."""
    for name, demand in reversed(list(DEMANDS.items())):
        bound, metric = BOUNDS[demand.bound], LIMITED[demand.metric]
        percentile = f", {demand.percentile}th percentile" if demand.percentile != 50 else ""
        figure = demand.metric.replace("_", " ").replace("macs", "MACs").replace("top1", "top-1")
        help_text = f"{figure[0].upper()}{figure[1:]} {bound} this: {metric.meaning}{percentile}."
        command = click.option("--" + name.replace("_", "-"), name, metavar=demand.example, help=help_text)(command)
    return command


def shape(text: str | None) -> tuple[int, int, int] | None:
    """An input shape as it is typed, `3,224,224`."""
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(
            f"--input-shape: {text!r} is not three whole numbers. Write channels, height and width: 3,224,224."
        )
    channels, height, width = (int(part) for part in parts)
    return channels, height, width


def refuse_existing(path: Path) -> None:
    """Raise UsageError where the file to write is already there."""
    if path.exists():
        raise UsageError(f"{path} exists already and is not overwritten. Give another -o.")


def refuse_overwriting(output: Path | None, *inputs: Path) -> None:
    """Raise UsageError where the file to write is one of those read."""
    for path in inputs:
        if output and output.exists() and path.exists() and output.samefile(path):
            raise UsageError(f"{output} is the input itself, which is never overwritten. Give another -o.")


def step_options(step: type[Step], but: type[Step] = Step) -> Callable[[F], F]:
    """An option for every field of a step that is none of `but`: name, type, default and description are the field's own."""

    def add(command: F) -> F:
        for name, field in reversed(step.model_fields.items()):
            if name not in but.model_fields:
                command = _option(name, field)(command)
        return command

    return add


def make_step(step: type[S], values: dict[str, Any]) -> S:
    """The step of the options given; raises UsageError naming the option that is out of its range."""
    given = {
        name: _typed(step.model_fields[name], value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }
    try:
        return step(**given)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = " ".join(str(part).replace("_", "-") for part in first["loc"] if isinstance(part, str))
        place = f"--{place}: " if place else ""
        raise UsageError(f"{place}{first['msg'].removeprefix('Value error, ').removesuffix('.')}.") from error


def _typed(field: FieldInfo, words: tuple[str, ...]) -> list[str] | dict[str, Any]:
    """What was given several times: a list, or for a step within the step, KEY=VALUE by KEY."""
    kind = _without_none(field.annotation)
    if get_origin(kind) is tuple:
        return list(words)
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.replace("-", "_")
        if not equals:
            raise UsageError(f"{word!r} is no setting. Write KEY=VALUE, such as rate=0.02.")
        if key not in kind.model_fields:
            raise unknown("setting", key, kind.model_fields)
        found.setdefault(key, []).append(value)
    several = {key for key in found if get_origin(_without_none(kind.model_fields[key].annotation)) is tuple}
    return {key: values if key in several else values[-1] for key, values in found.items()}


def _option(name: str, field: FieldInfo) -> Callable[[F], F]:
    flag = "--" + name.replace("_", "-")
    help_text = (field.description or "").replace("\n", " ")
    kind = _without_none(field.annotation)
    default = field.get_default(call_default_factory=True)
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=default, show_default=True, help=help_text)
    if get_origin(kind) is tuple:
        return click.option(
            flag, name, multiple=True, type=get_args(kind)[0], help=f"{help_text} May be given several times."
        )
    if isinstance(kind, type) and issubclass(kind, Step):
        return click.option(
            flag, name, multiple=True, metavar="KEY=VALUE", help=f"{help_text} May be given several times."
        )
    choice: Any = click.Choice([str(value) for value in get_args(kind)]) if get_origin(kind) is Literal else kind
    return click.option(flag, name, type=choice, default=default, show_default=default is not None, help=help_text)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (types.UnionType,) or str(get_origin(annotation)) == "typing.Union":
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation
