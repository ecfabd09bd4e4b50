"""Files that are either there whole or not there at all.

Every file is written under a temporary name in its own folder, flushed to the disk, renamed, and the
folder flushed: a kill or a full disk leaves the old file, or none, never half of one.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from compress.errors import CompressError, ResourceError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, it becomes `path`.

    Raises ResourceError where the place cannot be written or the disk is full; `path` is then as it was.
    """
    part: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or leave what was there."""
    with writing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file, or leave what was there."""
    write_bytes(path, content.encode())


def folder(path: Path) -> Path:
    """Make `path` and its parents a folder, if it is not one yet."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def unwritable(path: Path, error: OSError) -> CompressError:
    """What a failed write means to the user."""
    if error.errno == errno.ENOSPC:
        return ResourceError(
            f"the disk is full: {path} was not written, and nothing was changed. Free some space and run again."
        )
    reason = error.strerror or str(error)
    return ResourceError(f"cannot write {path}: {reason}. Choose a place that exists and can be written.")


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file the user named; raises CompressError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, what, error) from error


def unreadable(path: Path, what: str, error: OSError) -> CompressError:
    """What a failed read means to the user."""
    return CompressError(
        f"cannot read the {what} {path}: {error.strerror or error}. Check the path and its permissions."
    )


def digest_bytes(content: bytes) -> str:
    """SHA-256 of some bytes, as it stands in sidecars, histories and reports."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def gzipped(pieces: Iterable[bytes]) -> int:
    """How many bytes gzip makes of the pieces, one after the other (DEFLATE at its default level)."""
    packer, size = zlib.compressobj(wbits=zlib.MAX_WBITS | 16), 0  # 16: with the header and trailer of a .gz file
    for piece in pieces:
        size += len(packer.compress(piece))
    return size + len(packer.flush())
