"""Sessions of TensorRT engines on an NVIDIA GPU, whether `tensorrt` or `tensorrt_rtx` built them.

An engine is native code: loading one that someone else wrote is running their program. It is loaded only when
its sidecar, which `compress export` wrote, has its digest.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from compress.device import use
from compress.errors import CompressError, ResourceError, UsageError, missing_extra, unknown
from compress.export.artifact import read_sidecar
from compress.export.settings import PackageName
from compress.networks import UserNetwork
from compress.runtime.session import Images, Inside, Logits, require_fit

LISTING = "Layers:"
"""How the builder's list of an engine's layers begins."""


@dataclass(frozen=True)
class Package:
    """One of the two packages, which share an API.

    `tensorrt` builds for the GPU it runs on, by timing kernels there, and remembers the times in a cache.
    `tensorrt_rtx` builds for a named GPU on any machine and chooses kernels when the engine is loaded.
    """

    name: PackageName
    library: Any

    @property
    def version(self) -> str:
        """The version of the package; an engine loads in the one that built it only."""
        return str(self.library.__version__)

    @property
    def builds_anywhere(self) -> bool:
        """Whether it builds on a machine without a GPU; the one difference between the two."""
        return self.name == "tensorrt_rtx"


def package(name: PackageName | None = None) -> Package:
    """The package of that name, or the one that is installed: `tensorrt` first where there is a GPU.

    Raises ResourceError where it is not installed.
    """
    wanted = [name] if name else sorted(get_args(PackageName), reverse=not torch.cuda.is_available())
    for each in wanted:
        if importlib.util.find_spec(each) is not None:
            return Package(each, importlib.import_module(each))
    raise missing_extra(wanted[0], wanted[0].replace("_", "-"), "TensorRT")


def logger(library: Any) -> Any:
    """A TensorRT logger that keeps what it is told, but for details other than the layers: `lines` of (severity, message)."""

    class Log(library.ILogger):  # type: ignore[misc]  # the class comes from a package that has no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, also from its own threads."""
            if severity.name != "VERBOSE" or message.startswith(LISTING):
                self.lines.append((severity.name, message))

    return Log()


def errors(log: Any) -> str:
    """The errors a logger was told, on one line."""
    said = " ".join(message for severity, message in log.lines if severity.endswith("ERROR"))
    return " ".join(said.split()).rstrip(".") or "it gives no reason"


def open_tensorrt(
    path: Path, *, threads: int = 1, device: str = "cuda", user: UserNetwork | None = None
) -> "EngineSession":
    """A session of the engine at `path`, which has to be the one its sidecar was written for.

    `threads` and `user` play no part on a GPU. Raises CompressError for an engine without its sidecar, of
    another version or for another GPU, UsageError for the device cpu, ResourceError where there is no GPU.
    """
    artifact = read_sidecar(path)
    name = next((name for name in get_args(PackageName) if name in artifact.tools), None)
    if name is None:
        raise CompressError(f"the sidecar of {path} names no version of TensorRT. Export it with --format tensorrt.")
    made = f"{name} {artifact.tools[name]} for compute capability {artifact.settings.get('compute_capability')}"
    return EngineSession(path.read_bytes(), package(name), device=device, what=f"the engine {path}, built by {made},")


def require_gpu(device: str) -> None:
    """Raise where engines cannot run: UsageError for a device that is no GPU, ResourceError where it is not there."""
    if not device.startswith("cuda"):
        raise UsageError(f"the device {device!r} was asked for, and an engine runs on a GPU. Give --device cuda.")
    if not torch.cuda.is_available():
        raise ResourceError(
            "an engine runs on an NVIDIA GPU, and torch finds none here. "
            "Copy the engine and its sidecar to a machine that has one, or use the ONNX file on this one."
        )
    use(device, None)


def load(plan: bytes, package: Package, what: str) -> "Loaded":
    """The engine of some bytes, ready on the current GPU; raises CompressError with TensorRT's reason where it is none."""
    log = logger(package.library)
    runtime = package.library.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        here = ".".join(map(str, torch.cuda.get_device_capability()))
        raise CompressError(
            f"{what} does not load in {package.name} {package.version} on a GPU of compute capability {here}: "
            f"{errors(log)}. Export the checkpoint again on this machine, or for this GPU."
        )
    return Loaded(engine, runtime, log)


@dataclass(frozen=True)
class Loaded:
    """An engine with what it was made from, which TensorRT does not keep alive."""

    engine: Any
    runtime: Any
    log: Any

    def listing(self, library: Any) -> str:
        """The engine's layers, one to a line, with the types of the tensors each reads."""
        return str(self.engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.ONELINE))


class EngineSession:
    """A session of an engine's bytes. `what` names it in errors, with what it was built by and for.

    The images are copied to the GPU and the logits back within the call, on a stream of its own.
    """

    def __init__(self, plan: bytes, package: Package, *, device: str = "cuda", what: str = "the engine") -> None:
        require_gpu(device)
        self._device = torch.device(device)
        with torch.cuda.device(self._device):
            self._loaded = load(plan, package, what)
            engine = self._loaded.engine
            self._context = engine.create_execution_context()
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        modes = package.library.TensorIOMode
        (self._images,) = (name for name in names if engine.get_tensor_mode(name) == modes.INPUT)
        (self._logits,) = (name for name in names if engine.get_tensor_mode(name) == modes.OUTPUT)
        least, _, most = engine.get_tensor_profile_shape(self._images, 0)
        self.least, self.most = int(least[0]), int(most[0])
        channels, height, width = (int(extent) for extent in tuple(most)[1:])
        self.input_shape = (channels, height, width)

    def __call__(self, images: Images) -> Logits:
        """The logits of a batch; raises CompressError for more or fewer images than the engine was built for."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            logits: Logits = self._enqueue(self._copied(images)).cpu().numpy()
        return logits

    def device_seconds(self, images: Images) -> float:
        """How long the GPU computes for a batch, by its own clock, the copies left out."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            copied = self._copied(images)
            start.record()
            self._enqueue(copied)
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def outputs(self, names: Sequence[str]) -> Inside:
        """The logits by their name, and nothing else: an engine has fused its inner tensors away."""
        for name in names:
            if name != self._logits:
                raise unknown("tensor", name, [self._logits])
        return lambda images: dict.fromkeys(names, self(images))

    def close(self) -> None:
        """Let go of the engine and its memory on the GPU."""
        del self._context, self._loaded

    def _copied(self, images: Images) -> torch.Tensor:
        require_fit(images, self.input_shape)
        if not self.least <= len(images) <= self.most:
            raise CompressError(
                f"the engine was built for {self.least} to {self.most} images at a time, and got {len(images)}. "
                "Give smaller batches, or export it again for a larger one."
            )
        return torch.from_numpy(images).to(self._device).contiguous()

    def _enqueue(self, images: torch.Tensor) -> torch.Tensor:
        self._context.set_input_shape(self._images, tuple(images.shape))
        logits = torch.empty(tuple(self._context.get_tensor_shape(self._logits)), device=self._device)
        self._context.set_tensor_address(self._images, images.data_ptr())
        self._context.set_tensor_address(self._logits, logits.data_ptr())
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise CompressError(f"TensorRT could not run the engine: {errors(self._loaded.log)}. Export it again.")
        return logits
