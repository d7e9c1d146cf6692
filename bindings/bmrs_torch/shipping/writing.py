"""Replace a file at once, as what it was: its permissions stay, and errors name it as the user did."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

__all__ = ["check_place", "write"]


def check_place(path: Path) -> None:
    """Raise OSError, naming what was given, if there is no folder for a file or it may not be written."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(path.parent)!r} to save {path.name!r} in: make it first"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: name the file to save in it")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{str(path)!r} is there and may not be written")


def write(path: Path, content: bytes) -> None:
    """Replace a file by new content at once; until then, and if that fails, the old one stays.

    Parameters
    ----------
    path : Path
        Of the file; a link is followed. A new file has the permissions of any new one, an old one keeps its
        own.
    content : bytes
        What it will hold.

    Raises
    ------
    OSError
        If it can't be written; `path` is named, not the file that was written first.
    """
    place = Path(os.path.realpath(path))
    unfinished = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else None
        # Private from the first byte on, if the old one was.
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
        with os.fdopen(handle, "wb") as file:
            if mode is not None:
                unfinished.chmod(mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)
