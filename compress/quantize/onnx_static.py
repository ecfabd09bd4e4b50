"""Quantizing a network of which there is only an ONNX file, of any tool: onnxruntime's own quantizer, told what a target wants.

It is given the target's integers, scales and kinds of operators, and what it places otherwise than the target's
runtime likes is repaired as `compress lint --fix` does. Ranges are the least and the largest value seen.
"""

import dataclasses
import importlib.metadata
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from pydantic.dataclasses import dataclass

import compress
from compress import storage
from compress.architecture import STRICT
from compress.data.splits import LearningData
from compress.errors import CompressError, Refusal, UsageError, unknown
from compress.export import onnx_file, onnx_layers
from compress.export.artifact import Artifact, read_sidecar, sidecar, write_sidecar
from compress.lint import fix
from compress.lint.finding import Finding
from compress.lint.graph import answers, layers, quantizers, read, users, weight
from compress.parity import AGREEMENT, difference, void
from compress.progress import Progress, silent
from compress.quantize.calibration import NOT_FINITE, batches, calibrated
from compress.quantize.onnxruntime_tools import prepared, static, weighted
from compress.quantize.step import Quantize
from compress.quantize.target import SIMULATED, Target, target
from compress.runtime.kernels import layer
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.session import Images, Logits

HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
FEWEST = 2
"""Calibration images below which nothing can be said of the answers."""
ERRORS = ("refused", "wrong")
"""What a finding has to cost to be named in the notes."""


@dataclass(frozen=True, config=STRICT)
class QuantizedFile:
    """What was written, and what is known of it from the calibration images.

    `integer_macs` is the share of multiply-accumulates on integers, in per cent: in ONNX Runtime's kernels where that is
    the target, else in the graph; None where shapes cannot be followed. `top1_agreement` is the share of images, 0 to 1,
    that get the class the float file gives them, `sqnr_db` how far the logits' noise lies below them. `findings` are
    what `compress lint` has left to say. Where shapes cannot be followed the artifact has 0 MACs, and no sidecar is written.
    """

    artifact: Artifact
    integer_macs: float | None
    top1_agreement: float
    sqnr_db: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def quantize(
    path: Path, output: Path, data: LearningData, settings: Quantize, threads: int = 1, progress: Progress = silent
) -> QuantizedFile:
    """Quantize the ONNX file at `path` into `output`, with a sidecar; of `settings`, target, images, batch and exclude count.

    A file for a fixed number of images is shown as many at a time. Raises CompressError for a file that is not sound
    ONNX, no classifier of images, quantized already, in half precision or without a layer, and where the
    calibration images are of no use; UsageError for a layer excluded that is not there.
    """
    wanted, what = target(settings.target), f"the ONNX file {path}"
    if wanted.simulated or output.suffix != ".onnx":
        raise UsageError(
            f"an ONNX file becomes an ONNX file for a runtime: give -o NAME.onnx and a target other than torch ({SIMULATED})."
        )
    content = onnx_file.read(path)
    _require_plain(content, what)
    session = OnnxSession(content, threads=threads, what=what)
    count, size = _batches(session, len(data.calibration), settings, what)
    labels = set[int]()

    def shown(progress: Progress = silent) -> Iterator[Images]:
        return (images.numpy() for images in batches(data, count, size, labels, progress))

    plain = prepared(content, what)
    excluded = _excluded(plain, settings.exclude, what)
    exact: list[Logits] = []
    written = static(plain, wanted, excluded, _recorded(session, shown(progress), exact), what)
    proof = np.concatenate(list(itertools.islice(shown(), -(-fix.IMAGES // size))))
    done = fix.repair(_finished(written, what), wanted, proof)

    made = OnnxSession(done.content, threads=threads)
    reference, logits = np.concatenate(exact), np.concatenate([made(images) for images in shown()])
    if emptiness := void(reference):
        raise CompressError(
            f"{what} answers the calibration images with nothing to go by: {emptiness}. Look at its weights and at the data."
        )
    figures, share = difference(reference, logits), _integer_macs(made, done.content, wanted)
    findings = tuple(each for each in done.left if each.rule != "not-quantized" or each.node not in excluded)
    artifact = _artifact(path, output, done.content, plain, wanted, data, count, excluded)
    notes = (
        *calibrated(data, settings.images, count, labels),
        *_told(wanted, share, figures, findings),
    )
    storage.write_bytes(output, done.content)
    if artifact.macs:
        write_sidecar(artifact)
    else:
        sidecar(output).unlink(missing_ok=True)
    return QuantizedFile(artifact, share, figures["top1_agreement"], figures["sqnr_db"], findings, notes)


def _require_plain(content: bytes, what: str) -> None:
    """Raise CompressError for a graph that holds integers or half precision already."""
    model = onnx.load_model_from_string(content)
    for node in onnx_file.inside(model, onnx.NodeProto):
        if "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            raise CompressError(
                f"{what} is quantized already: it has {node.op_type} {node.name!r}. Give the FP32 file it was made of."
            )
    if any(tensor.data_type in HALF for tensor in onnx_file.inside(model, onnx.TensorProto)):
        raise CompressError(f"{what} computes in half precision. Give the FP32 file it was made of.")


def _batches(session: OnnxSession, there: int, settings: Quantize, what: str) -> tuple[int, int]:
    """How many images are looked at, and how many at a time."""
    count, size = min(settings.images, there), session.batch or settings.batch
    if session.batch:
        count -= count % size
    if count < FEWEST:
        raise CompressError(
            f"{what} takes {session.batch or 'any number of'} images at a time, and {min(settings.images, there)} calibration images "
            f"are too few to fill a batch and to compare answers. Give {max(size, FEWEST) if session.batch else FEWEST} or more."
        )
    return count, size


def _excluded(plain: bytes, exclude: tuple[str, ...], what: str) -> list[str]:
    """The nodes of the layers excluded by name, and of the modules with all layers in them."""
    nodes = weighted(plain)
    found = {
        name: [node for node in nodes if node == name or node.startswith((f"{name}/", f"{name}."))] for name in exclude
    }
    for name, inside in found.items():
        if not inside:
            raise unknown("layer", name, [layer(node) for node in nodes])
    return [node for node in nodes if any(node in inside for inside in found.values())]


def _recorded(session: OnnxSession, shown: Iterator[Images], exact: list[Logits]) -> Iterator[Images]:
    """The images as they come, the float file's logits for them put into `exact`."""
    for images in shown:
        logits = session(images)
        if not np.isfinite(logits).all():
            raise CompressError(NOT_FINITE)
        exact.append(logits)
        yield images


def _finished(content: bytes, what: str) -> bytes:
    """The graph with logits that stay float, and without what nothing refers to."""
    model = read(content)
    for node, _ in reversed(tuple(quantizers(model))):
        for reader in users(node.outputs[0]):
            value, given = reader.outputs[0], node.inputs[0]
            if answers(value) and given is not None:
                if value.is_graph_output():
                    value.name, given.name = f"{value.name}/rounded", value.name
                    given.type, given.shape = value.type, value.shape
                ir.convenience.replace_all_uses_with(value, given, replace_graph_outputs=True)
    for tidy in (common.RemoveUnusedNodesPass(), common.RemoveUnusedOpsetsPass()):
        tidy(model)
    finished: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    onnx_file.check(finished, f"the quantized form of {what}")
    if not any(weight(node.inputs[1]) for node in layers(model)):
        raise CompressError(
            f"no layer of {what} was quantized: all were excluded, or onnxruntime's quantizer takes none of them (it takes FP32). "
            "Exclude less, or export the network in FP32."
        )
    return finished


def _integer_macs(session: OnnxSession, content: bytes, wanted: Target) -> float | None:
    """The share of multiply-accumulates on integers: in ONNX Runtime's kernels where it is the target, else in the graph."""
    if wanted.name == "onnxruntime-cpu":
        return session.integer_macs()
    found = onnx_layers.layers(content)
    integers = sum(each.macs for each in found if each.precision == "int8")
    return 100 * integers / sum(each.macs for each in found) if found else None


def _told(wanted: Target, share: float | None, figures: dict[str, float], findings: tuple[Finding, ...]) -> list[str]:
    """What there is to say of the file that came out."""
    agreement = figures["top1_agreement"]
    notes = [
        f"{'an unknown share' if share is None else f'{share:.1f} %'} of the multiply-accumulates on integers",
        f"{agreement:.1%} of the calibration images get the float file's class, logits {figures['sqnr_db']:.1f} dB above the noise",
    ]
    if agreement < AGREEMENT["changed"]:
        notes.append(
            f"that is fewer than the {AGREEMENT['changed']:.0%} that compress parity asks for: evaluate it before use"
        )
    notes += [f"{each.rule} ({each.cost}): {each.node}: {each.why}" for each in findings if each.cost in ERRORS]
    rest = [each.rule for each in findings if each.cost not in ERRORS]
    if rest:
        notes.append(f"compress lint --target {wanted.name} tells more: {', '.join(dict.fromkeys(rest))}")
    return notes


def _artifact(
    path: Path,
    output: Path,
    content: bytes,
    plain: bytes,
    wanted: Target,
    data: LearningData,
    count: int,
    excluded: list[str],
) -> Artifact:
    """What is written beside the file: what its source's sidecar says, or else what can be read from the graph."""
    if sidecar(path).exists():
        source = read_sidecar(path)
    else:
        graph, shape = onnx.load_model_from_string(plain).graph, OnnxSession(plain).input_shape
        source = Artifact(
            path=path,
            format="onnx",
            precision="fp32",
            target=None,
            network=path.stem,
            input_shape=shape,
            source=storage.digest_file(path),
            digest="",
            size_bytes=0,
            parameters=sum(
                int(np.prod(tensor.dims)) for tensor in graph.initializer if tensor.data_type in onnx_file.FLOATS
            ),
            macs=sum(each.macs for each in onnx_layers.layers(plain)),
            dataset=data.spec,
            tools={},
        )
    settings = {"quantizer": "onnxruntime.quantization.quantize_static", "observer": "min-max", "images": str(count)}
    return dataclasses.replace(
        source,
        path=output,
        precision="int8",
        target=wanted.name,
        digest=storage.digest_bytes(content),
        size_bytes=len(content),
        tools=source.tools
        | {"compress": compress.__version__}
        | {tool: importlib.metadata.version(tool) for tool in ("onnx", "onnxruntime")},
        settings=dict(source.settings) | settings,
        kept=tuple(Refusal(layer(node), "it was excluded") for node in excluded),
    )
