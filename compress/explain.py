"""What a file is, in words, without torch: from its header, and of the weights only those that masks hold zeros in."""

import math
from pathlib import Path

from compress import checkpoint, storage
from compress.checkpoint import Header, Record
from compress.quantize.target import SIMULATED, simulated
from compress.recipe import STEPS, step_class
from compress.sparsity import weight_of, zeros

Explanation = dict[str, str | list[str]]

ARTIFACTS = (".onnx", ".xml", ".engine")
"""Endings of the files that an export writes."""


def explain(path: Path) -> Explanation:
    """A word for each thing there is to know of a checkpoint, or of an artifact with its sidecar."""
    if path.suffix in ARTIFACTS:
        return _artifact(path)
    return _checkpoint(path, checkpoint.header(path))


def _checkpoint(path: Path, header: Header) -> Explanation:
    description = header.description
    architecture, data = description.architecture, description.dataset
    numbers = sum(math.prod(shape) for _, shape in header.tensors.values())
    return {
        "kind": "checkpoint",
        "network": architecture.title,
        "arguments": ", ".join(f"{key}={value}" for key, value in architecture.arguments.items()),
        "input": "x".join(map(str, architecture.input_shape)),
        "precision": architecture.precision
        + (f" for {architecture.quantization.target}" if architecture.quantization else "")
        + (f", {SIMULATED}" if simulated(architecture) else "")
        + (f", training on the integers of {architecture.prepared.target}" if architecture.prepared else ""),
        "batch norms": "in place" if architecture.folded is None else f"{len(architecture.folded)} folded",
        "removed blocks": ", ".join(architecture.removed),
        "narrowed layers": [
            f"{layer}: {inputs} -> {outputs}" for layer, (inputs, outputs) in architecture.widths.items()
        ],
        "masked layers": _masks(path, header),
        "data": f"{data.name}, {len(data.classes)} classes" if data else "not said",
        "trained on": "train split" if description.trained_on == "train" else "all, the validation split included",
        "history": [_line(number, record) for number, record in enumerate(description.history, 1)],
        "tensors": f"{len(header.tensors)}, {numbers:,} numbers",
        "size": f"{header.size_bytes:,} bytes",
        "digest": storage.digest_file(path),
    }


def _masks(path: Path, header: Header) -> list[str]:
    """Each masked layer with the share of its weights that are zero."""
    from safetensors import safe_open

    lines = []
    with safe_open(path, framework="numpy") as file:
        for layer in header.description.architecture.masked:
            name = weight_of(header.tensors, layer)
            lines.append(f"{layer}: {zeros(file.get_tensor(name)):.1%} zeros" if name else layer)
    return lines


def _line(number: int, record: Record) -> str:
    usual = _defaults(record.step)
    chosen = {
        key: value for key, value in record.settings.items() if value not in (None, [], {}) and value != usual.get(key)
    }
    settings = ", ".join(f"{key}={value}" for key, value in chosen.items())
    left = [f"left alone {refusal.layer}: {refusal.reason}" for refusal in record.refusals]
    return "\n     ".join([f"{number}. {record.step}{f' ({settings})' if settings else ''}", *record.notes, *left])


def _defaults(step: str) -> dict[str, object]:
    """A step's settings as they are where nobody chose them; what is said of a step are the others."""
    if step not in STEPS:
        return {}
    fields = step_class(step).model_fields
    return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}


def _artifact(path: Path) -> Explanation:
    from compress.export.artifact import read_sidecar

    found = read_sidecar(path)
    return {
        "kind": "artifact",
        "network": found.network,
        "format": found.format,
        "precision": found.precision + (f" for {found.target}" if found.target else ""),
        "input": "x".join(map(str, found.input_shape)),
        "from checkpoint": found.source,
        "digest": found.digest,
        "MACs": f"{found.macs:,}",
        "parameters": f"{found.parameters:,}",
        "zero weights": "" if found.sparsity is None else f"{found.sparsity:.1f} %",
        "size": f"{found.size_bytes:,} bytes",
        "files beside it": list(found.parts),
        "made with": [f"{name}: {value}" for name, value in found.settings.items()],
        "left in FP32": [f"{refusal.layer}: {refusal.reason}" for refusal in found.kept],
    }
