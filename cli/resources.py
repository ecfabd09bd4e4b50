"""From the words of a command line to what a step may use."""

from pathlib import Path

from compress.checkpoint import Checkpoint
from compress.pipeline import Resources, partial_of
from compress.progress import Progress


def gather(
    source: Checkpoint,
    data: str | None,
    data_folder: Path | None,
    calibration: Path | None,
    teacher: Path | None,
    network: str | None,
    seed: int,
    device: str,
    threads: int | None,
    progress: Progress,
    result: Path,
    file: Path,
) -> Resources:
    """Load what was named: data, teacher, the user's own network function; check the device."""
    from compress import checkpoint as files
    from compress import networks
    from compress.data.load import load_for
    from compress.device import use

    return Resources(
        data=load_for(source.architecture, source.dataset, data, data_folder, calibration).learning if data else None,
        seed=seed,
        device=use(device, threads),
        teacher=files.load(teacher) if teacher else None,
        user=networks.load_user(network) if network else None,
        progress=progress,
        partial=partial_of(result),
        source=file,
    )
