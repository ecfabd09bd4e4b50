"""Sessions of ONNX files, run by ONNX Runtime."""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from compress.errors import CompressError, ResourceError, UsageError, unknown
from compress.export import onnx_file
from compress.measurement import Node
from compress.networks import UserNetwork
from compress.runtime import kernels
from compress.runtime.integer import INTEGER, PRODUCTS, integer_share
from compress.runtime.session import Images, Inside, Logits, Point, require_fit

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""What ONNX Runtime calls each kind of device."""

TIMED = "_kernel_time"
"""How the events of its profile that are a kernel's time are called, after the kernel's name."""

REFUSALS = tuple(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception))
"""ONNX Runtime's exceptions, which have no common parent of their own."""


def open_onnx(path: Path, *, threads: int = 1, device: str = "cpu", user: UserNetwork | None = None) -> "OnnxSession":
    """A session of the ONNX file at `path`, which is read once and checked; `user` is not needed for a file."""
    return OnnxSession(onnx_file.read(path), threads=threads, device=device, what=f"the ONNX file {path}")


class OnnxSession:
    """A session of checked ONNX bytes.

    `optimise` switches ONNX Runtime's rewriting of the graph: off, each node is computed as it is written.
    `what` names the file in errors. Raises CompressError where ONNX Runtime refuses the graph or it is no
    classifier of images, ResourceError where the device's provider is not there.
    """

    def __init__(
        self, content: bytes, *, threads: int = 1, device: str = "cpu", optimise: bool = True, what: str = "the graph"
    ) -> None:
        self._content = content
        self._start = partial(_start, threads=threads, device=device, optimise=optimise, what=what)
        self._session = self._start(content)
        self.batch, self.input_shape = _input(self._session, what)
        self._images = self._session.get_inputs()[0].name
        self._logits = self._session.get_outputs()[0].name

    def __call__(self, images: Images) -> Logits:
        """The logits of a batch."""
        logits: Logits = self._run(self._session, [self._logits], images)[0]
        return logits

    def outputs(self, names: Sequence[str]) -> Inside:
        """Tensors by their name in the graph, from a second session that gives them as outputs.

        ONNX Runtime cannot rewrite across a tensor it has to give: with `optimise` the numbers may differ
        slightly from those inside this session.
        """
        model = onnx.load_model_from_string(self._content)
        known = [name for node in model.graph.node for name in node.output if name]
        for name in names:
            if name not in known:
                raise unknown("tensor", name, known)
        given = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
        inner = self._start(model.SerializeToString())
        return lambda images: dict(zip(names, self._run(inner, names, images), strict=True))

    def points(self) -> tuple[Point, ...]:
        """The first output of every node, in the graph as it is written."""
        nodes = onnx.load_model_from_string(self._content).graph.node
        return tuple(
            Point(
                node.output[0],
                node.op_type in (*PRODUCTS, *INTEGER),
                tuple(other.output[0] for other in nodes if node.output[0] in other.input),
            )
            for node in nodes
        )

    def integer_macs(self) -> float | None:
        """The share of multiply-accumulates in integer kernels, in per cent, in the graph as ONNX Runtime rewrote it.

        None where nothing is quantized, or where shapes cannot be followed through another tool's operators.
        """
        with tempfile.TemporaryDirectory() as folder:
            rewritten = Path(folder) / "optimised.onnx"
            self._start(self._content, rewritten=rewritten)
            return integer_share(onnx.load_model_from_string(self._content), onnx.load_model(rewritten))

    def node_seconds(self, images: Images) -> tuple[Node, ...]:
        """ONNX Runtime's own profile of a batch, taken in a second session."""
        model = kernels.named(onnx.load_model_from_string(self._content))
        with tempfile.TemporaryDirectory() as folder:
            session = self._start(model.SerializeToString(), profile=Path(folder) / "profile")
            kernels.observed(lambda: self._run(session, [self._logits], images))
            events = json.loads(Path(session.end_profiling()).read_bytes())
        times: dict[tuple[str, str, str], list[float]] = {}
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith(TIMED):
                details = event["args"]
                key = event["name"].removesuffix(TIMED), details["op_name"], details["provider"]
                times.setdefault(key, []).append(event["dur"] / 1e6)
        owners = kernels.layers(model, {name: operator for name, operator, _ in times})
        return tuple(
            Node(name, operator, owners.get(name, ""), kernels.steady(seconds), provider)
            for (name, operator, provider), seconds in times.items()
        )

    def close(self) -> None:
        """Let go of the graph and its memory."""
        del self._session, self._content

    def _run(self, session: onnxruntime.InferenceSession, names: Sequence[str], images: Images) -> list[Any]:
        require_fit(images, self.input_shape, self.batch)
        answers: list[Any] = session.run(list(names), {self._images: images})
        return answers


def _start(
    content: bytes,
    *,
    threads: int,
    device: str,
    optimise: bool,
    what: str,
    rewritten: Path | None = None,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Hand the bytes to ONNX Runtime; `rewritten` is where it writes the graph it made of them, `profile` how its file of times begins."""
    provider = _provider(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    if rewritten is not None:
        options.optimized_model_filepath = str(rewritten)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    options.log_severity_level = 3  # errors; its warnings speak of its own insides
    # Threads that wait busily after a run would take the processor from the session measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
    except REFUSALS as error:
        raise CompressError(
            f"ONNX Runtime {onnxruntime.__version__} refuses {what}: {' '.join(str(error).split()).rstrip('.')}. "
            "Export it with other operators or an older opset, or use another runtime."
        ) from error
    if session.get_providers()[0] != provider[0]:
        raise ResourceError(
            f"{device} was asked for, and ONNX Runtime fell back to {session.get_providers()[0]}. "
            "Check the driver and CUDA libraries, or use the device cpu."
        )
    return session


def _provider(device: str) -> tuple[str, dict[str, str]]:
    kind, _, index = device.partition(":")
    if kind not in PROVIDERS or (index and not index.isdecimal()):
        raise UsageError(f"unknown device {device!r}: give cpu, cuda or cuda:N.")
    if PROVIDERS[kind] not in onnxruntime.get_available_providers():
        raise ResourceError(
            f"{device} was asked for, and this build of ONNX Runtime has no {PROVIDERS[kind]}. "
            "Use the device cpu, or install onnxruntime-gpu in place of onnxruntime."
        )
    return PROVIDERS[kind], {"device_id": index} if index else {}


def _input(session: onnxruntime.InferenceSession, what: str) -> tuple[int | None, tuple[int, int, int]]:
    """The batch size (None where it is free) and the image shape the graph takes."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    if (
        len(shape) != 4
        or not all(isinstance(extent, int) for extent in shape[1:])
        or outputs[0].type != "tensor(float)"
    ):
        found = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in (*inputs, *outputs))
        raise CompressError(
            f"{what} is no classifier of images: it has {found}. "
            "It needs one float32 input (N, C, H, W), of which only N may be free, and float32 logits."
        )
    batch, channels, height, width = shape
    return (batch if isinstance(batch, int) else None), (channels, height, width)
