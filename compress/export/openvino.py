"""OpenVINO's own files, made of the same ONNX graph: the layers in an .xml, the weights beside it in a .bin."""

import tempfile
from pathlib import Path

from compress.errors import CompressError, UsageError
from compress.export.made import Made
from compress.export.settings import Settings
from compress.runtime.openvino import library, reason, version


def made(content: bytes, settings: Settings, path: Path) -> Made:
    """The files of a model at `path` (NAME.xml), of checked ONNX bytes; the same bytes give the same files.

    Weights keep their type. Raises CompressError where OpenVINO has no word for an operator, UsageError for a
    path with another ending, ResourceError where OpenVINO is not installed.
    """
    openvino = library()
    if path.suffix != ".xml":
        raise UsageError(f"{path} was to be written, and OpenVINO's files are NAME.xml and NAME.bin. Give -o NAME.xml.")
    try:
        model = openvino.Core().read_model(content)
    except RuntimeError as error:
        raise CompressError(
            f"OpenVINO {version(openvino)} cannot read the ONNX graph: {reason(error)}. "
            "Write that part of the network with other operators, or export it as ONNX."
        ) from error
    for number, call in enumerate(model.get_ordered_ops()):
        # A layer without a name of its own is named by a counter that never starts again in a process.
        if call.get_friendly_name() == call.get_name():
            call.set_friendly_name(f"{call.get_type_name()}_{number}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "model.xml")
        openvino.save_model(model, place, compress_to_fp16=False)
        return Made(
            place.read_bytes(),
            parts={path.with_suffix(".bin").name: place.with_suffix(".bin").read_bytes()},
            tools={"openvino": version(openvino)},
        )
