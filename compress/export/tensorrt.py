"""TensorRT engines, built from the same ONNX graph by `tensorrt` on its GPU or by `tensorrt_rtx` on any machine.

What the graph says is what is built: INT8 where it has Q/DQ, half precision where it has half-precision
tensors, FP32 (never TF32) elsewhere. An engine is checked layer by layer against that before it is written.
Building twice does not give the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compress import storage
from compress.errors import CheckFailed, CompressError, ResourceError, UsageError, unknown
from compress.export.artifact import read_sidecar
from compress.export.engine_layers import Layer, built, layers
from compress.export.made import Made
from compress.export.settings import DEFAULT, Settings
from compress.lint.rules import lint
from compress.quantize.target import TARGETS
from compress.runtime.tensorrt import LISTING, Package, errors, load, logger, package

TIMING_CACHE = "timing_cache"
"""Under which word a sidecar holds the digest of the timing cache."""


@dataclass(frozen=True)
class Engine:
    """An engine's bytes, how it was built, and what of the build is worth keeping.

    `timing_cache` makes the next build of a like network faster and is empty where the package has none.
    `layers` are the layers that multiply, with the type they ask for and the one that was built.
    """

    plan: bytes
    package: str
    version: str
    compute_capability: str
    timing_cache: bytes
    log: str
    layers: tuple[Layer, ...]


def made(content: bytes, settings: Settings, path: Path) -> Made:
    """The engine at `path` of checked ONNX bytes, with the builder's log and its timing cache beside it.

    The timing cache of an engine that is there already is used again.
    """
    log, cache = f"{path.name}.log", f"{path.name}.timing-cache"
    engine = build(content, settings, earlier(path, cache))
    timed = bool(engine.timing_cache)
    return Made(
        engine.plan,
        beside={log: engine.log.encode()} | ({cache: engine.timing_cache} if timed else {}),
        settings={
            "compute_capability": engine.compute_capability,
            "batches": "/".join(map(str, settings.batches if settings.batch is None else [settings.batch] * 3)),
            "workspace": str(settings.workspace),
            "layers": _verdict(engine.layers),
        }
        | ({TIMING_CACHE: storage.digest_bytes(engine.timing_cache)} if timed else {}),
        tools={engine.package: engine.version},
    )


def earlier(path: Path, cache: str) -> bytes:
    """The timing cache beside an engine, if it is the one that engine's sidecar names: native code reads it."""
    place = path.with_name(cache)
    if not place.exists():
        return b""
    content = place.read_bytes()
    try:
        named = read_sidecar(path).settings.get(TIMING_CACHE)
    except CompressError:  # no engine is there, or half of one: then nothing vouches for the cache
        return b""
    return content if named == storage.digest_bytes(content) else b""


def _verdict(found: tuple[Layer, ...]) -> str:
    """What the check of the layers' types came to, in words."""
    if not any(layer.built for layer in found):
        return "skipped: TensorRT listed no layers with their types"
    return f"{sum(layer.built == layer.asked for layer in found)} of {len(found)} in the type asked for"


def build(content: bytes, settings: Settings = DEFAULT, timing_cache: bytes = b"") -> Engine:
    """The engine of checked ONNX bytes, whose one input is (N, C, H, W) with only N free.

    `timing_cache` is that of an earlier build. Raises CompressError where TensorRT does not take the graph or
    would compute something else, UsageError for a GPU it does not build for, ResourceError where it is not
    installed or needs the GPU it builds for, CheckFailed where it built other types than the graph asks for.
    """
    chosen = package(settings.package)
    capability = _capability(chosen, settings.compute_capability)
    _require_computed(content)
    library, log = chosen.library, logger(chosen.library)
    builder = library.Builder(log)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log)
    if not parser.parse(content):
        raise _unparsed(chosen, parser)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, settings.workspace)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    config.clear_flag(library.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(builder, network, settings.batches))
    if chosen.builds_anywhere:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.ComputeCapability, f"SM{capability.replace('.', '')}"), 0)
    else:
        # One from another GPU or version is not taken, and the build starts with none.
        config.set_timing_cache(config.create_timing_cache(timing_cache), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompressError(
            f"{chosen.name} {chosen.version} could not build the engine: {errors(log)}. "
            "Give it a larger workspace or a smaller largest batch, or export the network as ONNX."
        )
    engine = bytes(plan)
    found = layers(content, _listing(chosen, engine, capability, log))
    require_asked(found, settings.tolerated)
    return Engine(
        plan=engine,
        package=chosen.name,
        version=chosen.version,
        compute_capability=capability,
        timing_cache=b"" if chosen.builds_anywhere else bytes(config.get_timing_cache().serialize()),
        log="".join(f"{severity}: {message}\n" for severity, message in log.lines),
        layers=found,
    )


def _capability(chosen: Package, asked: str | None) -> str:
    """The compute capability to build for; raises where that package cannot build for it here."""
    here = ".".join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else None
    if not chosen.builds_anywhere:
        if here is None:
            raise ResourceError(
                "tensorrt builds on the GPU that the engine is for, and torch finds none here. "
                "Export on a machine that has it, or with tensorrt_rtx, which needs none."
            )
        if asked not in (None, here):
            raise UsageError(
                f"compute capability {asked} was asked for, and tensorrt builds for the GPU it runs on, of {here}. "
                "Leave it out, or export with tensorrt_rtx."
            )
        return here
    known = [name for name in chosen.library.ComputeCapability.__members__ if name.startswith("SM")]
    words = [f"{name[2:-1]}.{name[-1]}" for name in known]
    wanted = asked or here
    if wanted is None:
        raise UsageError(
            "there is no GPU here to build for, and none was named. "
            f"Give the compute capability of the one the engine is for: {', '.join(words)}."
        )
    if wanted not in words:
        raise unknown("compute capability", wanted, words)
    return wanted


def _require_computed(content: bytes) -> None:
    """Raise CompressError for a graph that TensorRT refuses, or takes and computes differently."""
    findings = [each for each in lint(content, TARGETS["tensorrt"]) if each.cost in ("refused", "wrong")]
    if findings:
        first = findings[0]
        raise CompressError(
            f"TensorRT cannot compute {first.node}{f' and {len(findings) - 1} other places' if findings[1:] else ''}: "
            f"{first.why} Quantize the checkpoint with --target tensorrt; compress lint --target tensorrt lists every place."
        )


def _unparsed(chosen: Package, parser: Any) -> CompressError:
    said = [parser.get_error(place) for place in range(parser.num_errors)]
    reason = f"{said[0].node_operator()} {said[0].node_name()}: {said[0].desc()}" if said else "it gives no reason"
    return CompressError(
        f"{chosen.name} {chosen.version} cannot read the ONNX graph: {' '.join(reason.split()).rstrip('.')}. "
        "Write that part of the network with other operators, or export it as ONNX."
    )


def _profile(builder: Any, network: Any, batches: tuple[int, int, int]) -> Any:
    """The batch sizes an engine takes; that of a graph that has only one is kept."""
    images = network.get_input(0)
    batch, *rest = tuple(images.shape)
    if network.num_inputs != 1 or len(rest) != 3 or -1 in rest:
        raise CompressError(
            f"an engine is built for one input (N, C, H, W) of which only N is free, and the graph has {network.num_inputs}, "
            f"the first {tuple(images.shape)}. Export the network for one image size."
        )
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, *((size if batch == -1 else batch, *rest) for size in batches))
    return profile


def _listing(chosen: Package, engine: bytes, capability: str, log: Any) -> str:
    """The engine's layers as TensorRT lists them: on its GPU the engine's own list, else the builder's."""
    listing = ""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() == tuple(map(int, capability.split("."))):
        listing = load(engine, chosen, "the engine just built").listing(chosen.library)
    return listing if built(listing) else "\n".join(each for _, each in log.lines if each.startswith(LISTING))


def require_asked(found: tuple[Layer, ...], tolerated: float) -> None:
    """Raise CheckFailed where more layers than tolerated are computed in another type; a list without types passes."""
    other = [layer for layer in found if layer.built != layer.asked]
    if any(layer.built for layer in found) and len(other) > tolerated * len(found):
        named = ", ".join(f"{layer.name} ({layer.built} instead of {layer.asked})" for layer in other[:5])
        raise CheckFailed(
            f"{len(other)} of {len(found)} layers were built in another type than the graph asks for: {named}. "
            "Nothing was written. Look at the graph with: compress lint --target tensorrt."
        )
