"""Sessions of OpenVINO's own files and of ONNX files, run by OpenVINO on the CPU."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from compress import storage
from compress.errors import CompressError, UsageError, missing_extra, unknown
from compress.export import onnx_file
from compress.measurement import Node
from compress.networks import UserNetwork
from compress.runtime import kernels
from compress.runtime.integer import PRODUCTS
from compress.runtime.session import Images, Inside, Logits, Point, require_fit

TELEMETRY = "openvino_telemetry"
UNSEEN = ("Parameter", "Constant", "Result")
IDLE = ("Input", "Output", "Const")
"""Kernels of a compiled model that compute nothing."""


def library() -> ModuleType:
    """OpenVINO, without its telemetry; raises ResourceError where it is not installed.

    Importing it sends an event to its makers and leaves a client number in the home folder, without asking;
    where its telemetry package cannot be imported it uses a stub of its own that does neither.
    """
    if TELEMETRY not in sys.modules:
        sys.modules[TELEMETRY] = cast(ModuleType, None)
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra("openvino", "openvino", "OpenVINO") from error
    return cast(ModuleType, openvino)


def open_openvino(
    path: Path, *, threads: int = 1, device: str = "cpu", user: UserNetwork | None = None
) -> "OpenvinoSession":
    """A session of `NAME.xml` with its `NAME.bin`, or of an ONNX file; each file is read once, here.

    `user` is not needed for a file. Raises UsageError for another device than the cpu.
    """
    if device != "cpu":
        raise UsageError(
            f"the device {device!r} was asked for, and OpenVINO is used on the CPU only. Give --device cpu."
        )
    if path.suffix == ".onnx":
        return OpenvinoSession(onnx_file.read(path), threads=threads, what=f"the ONNX file {path}")
    content = storage.read_bytes(path, "OpenVINO file")
    weights = storage.read_bytes(path.with_suffix(".bin"), "weights of the OpenVINO file")
    return OpenvinoSession(content, weights, threads=threads, what=f"the OpenVINO file {path}")


class OpenvinoSession:
    """A session of the bytes of an OpenVINO file and its weights, or of ONNX bytes alone.

    What is not integers is computed in FP32, whatever the processor would rather do. `what` names the file in
    errors. Raises CompressError where OpenVINO refuses the graph or it is no classifier of images.
    """

    def __init__(self, content: bytes, weights: bytes = b"", *, threads: int = 1, what: str = "the graph") -> None:
        self._read = partial(_read, library(), content, weights, what)
        self._compile = partial(_compile, library(), threads, what)
        model = self._read()
        self.batch, self.input_shape = _input(model, what)
        self._request = self._compile(model).create_infer_request()

    def __call__(self, images: Images) -> Logits:
        """The logits of a batch."""
        require_fit(images, self.input_shape, self.batch)
        logits: Logits = self._request.infer([images], share_inputs=True)[0]
        return logits

    def outputs(self, names: Sequence[str]) -> Inside:
        """Tensors by their name in the graph, from a second session that gives them as outputs."""
        model = self._read()
        known = {name for call in model.get_ops() for output in call.outputs() for name in output.get_names()}
        for name in names:
            if name not in known:
                raise unknown("tensor", name, known)
        model.add_outputs(list(names))
        request = self._compile(model).create_infer_request()

        def look(images: Images) -> dict[str, Any]:
            require_fit(images, self.input_shape, self.batch)
            request.infer([images], share_inputs=True)
            return {name: request.get_tensor(name).data.copy() for name in names}

        return look

    def points(self) -> tuple[Point, ...]:
        """The first output of every operator that has a name, constants left out."""
        calls = [call for call in self._read().get_ordered_ops() if call.get_type_name() not in UNSEEN]
        return tuple(
            Point(
                call.output(0).get_any_name(),
                _multiplies(call),
                tuple(name for reader in call.output(0).get_target_inputs() for name in _names(reader.get_node())),
            )
            for call in calls
            if _names(call)
        )

    def node_seconds(self, images: Images) -> tuple[Node, ...]:
        """OpenVINO's own profile of a batch, taken in a second session."""
        require_fit(images, self.input_shape, self.batch)
        compiled = self._compile(self._read(), PERF_COUNT=True)
        request = compiled.create_infer_request()
        seconds: list[dict[str, float]] = []

        def run() -> None:
            request.infer([images], share_inputs=True)
            seconds.append({each.node_name: each.real_time.total_seconds() for each in request.profiling_info})

        count = kernels.observed(run)
        found = []
        for call in compiled.get_runtime_model().get_ordered_ops():
            name, operator = call.get_friendly_name(), _told(call, "layerType")
            if name in seconds[0] and operator not in IDLE:
                # What it tells is the mean of all runs so far, so the first is taken out of the last.
                each = max(0.0, (count * seconds[-1][name] - seconds[0][name]) / (count - 1))
                owner = _layer(call, _told(call, "originalLayersNames")) if kernels.MULTIPLIES.search(operator) else ""
                found.append(Node(name, operator, owner, each, _told(call, "primitiveType")))
        return tuple(found)

    def close(self) -> None:
        """Let go of the graph and its memory."""
        del self._request, self._read


def _read(openvino: Any, content: bytes, weights: bytes, what: str) -> Any:
    """OpenVINO's model of some bytes, which it is never given as a path."""
    try:
        return openvino.Core().read_model(content, weights) if weights else openvino.Core().read_model(content)
    except RuntimeError as error:
        raise _refused(openvino, what, error) from error


def _multiplies(call: Any) -> bool:
    """Whether an operator is a layer: it multiplies itself, or adds the bias to a nameless one that does."""
    sources = [given.get_source_output().get_node() for given in call.inputs()]
    return any(
        kernels.MULTIPLIES.search(each.get_type_name()) is not None
        for each in (call, *(source for source in sources if not _names(source)))
    )


def _names(call: Any) -> list[str]:
    """The name of an operator's first output, where it has one."""
    return [call.output(0).get_any_name()] if call.get_output_size() and call.output(0).get_names() else []


def _layer(call: Any, made_from: str) -> str:
    """The layer a kernel that multiplies belongs to: by the nodes it was made from, or by its stored weights."""
    for node in made_from.split(","):
        module, *operators = node.split("/")
        if any(operator in PRODUCTS for operator in operators):
            return str(module)
    for given in call.inputs():
        weights = given.get_source_output().get_node()
        if _told(weights, "layerType") == "Const" and "." in weights.get_friendly_name():
            return str(weights.get_friendly_name()).removesuffix(".integer").rpartition(".")[0]
    return made_from.partition(",")[0]


def _told(call: Any, word: str) -> str:
    """What a compiled model says of one of its kernels."""
    told = call.get_rt_info()
    return str(told[word].astype(str)) if word in told else ""


def _compile(openvino: Any, threads: int, what: str, model: Any, **more: bool) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        # A pinned thread would stay on its core while another runtime is measured beside it.
        "ENABLE_CPU_PINNING": False,
        **more,
    }
    try:
        return openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _refused(openvino, what, error) from error


def _refused(openvino: Any, what: str, error: RuntimeError) -> CompressError:
    return CompressError(
        f"OpenVINO {version(openvino)} refuses {what}: {reason(error)}. Export it again, or use another runtime."
    )


def version(openvino: Any) -> str:
    """OpenVINO's version without its build."""
    return str(openvino.__version__).partition("-")[0]


def reason(error: RuntimeError) -> str:
    """What OpenVINO says of a failure, without the places in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(
        line for line in lines if line and not line.startswith(("Exception from", "Check '", "To "))
    ).rstrip(".")


def _input(model: Any, what: str) -> tuple[int | None, tuple[int, int, int]]:
    """The batch size (None where it is free) and the image shape the model takes."""
    shape = model.inputs[0].get_partial_shape() if len(model.inputs) == 1 else []
    if len(shape) != 4 or any(extent.is_dynamic for extent in list(shape)[1:]) or len(model.outputs) != 1:
        found = ", ".join(
            f"{each.get_any_name()}: {each.get_partial_shape()}" for each in (*model.inputs, *model.outputs)
        )
        raise CompressError(
            f"{what} is no classifier of images: it has {found or 'no inputs'}. "
            "It needs one input (N, C, H, W), of which only N may be free, and one output."
        )
    batch, channels, height, width = shape
    return (None if batch.is_dynamic else batch.get_length()), (
        channels.get_length(),
        height.get_length(),
        width.get_length(),
    )
