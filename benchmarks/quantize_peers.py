"""The quantizers of other tools, as the other scripts call them: each from ONNX bytes to ONNX bytes, on the same images."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from compress.data.normalise import normalise
from compress.data.splits import Data

IMAGES, BATCH = 512, 64
"""How many calibration images everybody looks at, and how many at a time."""


def calibration(data: Data) -> Iterator[np.ndarray]:
    """The same images, for the other tools; all there are where those are fewer."""
    for pixels, _ in data.learning.calibration.batches(BATCH, np.arange(min(IMAGES, len(data.learning.calibration)))):
        yield normalise(pixels, data.spec.preprocessing).numpy()


def onnxruntime_static(source: bytes, images: Iterable[np.ndarray], per_channel: bool) -> bytes:
    """onnxruntime's own quantizer, on batches of images: as it comes, or with uint8 activations and a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": batch} for batch in self.batches), None)

    chosen = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quiet = contextlib.redirect_stdout(io.StringIO())
    with (
        tempfile.TemporaryDirectory() as temporary,
        contextlib.chdir(temporary),
        quiet,
    ):  # where it fails it leaves files
        given, prepared, made = (Path(temporary) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        given.write_bytes(source)
        quant_pre_process(str(given), str(prepared))
        quantize_static(str(prepared), str(made), Reader(), **(chosen if per_channel else {}))
        return made.read_bytes()


def nncf(source: bytes, data: Data) -> bytes:
    """NNCF's post-training quantization of the same ONNX file."""
    import nncf as peer
    import onnx

    batches = [{"images": batch} for batch in calibration(data)]
    made = peer.quantize(onnx.load_model_from_string(source), peer.Dataset(batches), subset_size=len(batches))
    return bytes(made.SerializeToString())


def peers(source: bytes, data: Data) -> dict[str, Callable[[], bytes]]:
    """The other tools that are installed."""
    found: dict[str, Callable[[], bytes]] = {
        "onnxruntime quantize_static, defaults": lambda: onnxruntime_static(source, calibration(data), False),
        "onnxruntime quantize_static, per channel, uint8": lambda: onnxruntime_static(source, calibration(data), True),
    }
    with contextlib.suppress(ImportError):
        import nncf as peer

        found[f"NNCF {peer.__version__}"] = lambda: nncf(source, data)
    return found
