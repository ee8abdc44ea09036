"""Which files are an operating system's own: never scans, whatever their ending."""

from pathlib import Path

_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
# What macOS adds to archives: copies named as the files they describe.
_SYSTEM_FOLDER = "__MACOSX"


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a path below a folder is hidden or in a hidden folder there, such as `._scan.ply`, `.DS_Store`."""
    parts = path.relative_to(folder).parts
    return any(part.startswith(".") or part == _SYSTEM_FOLDER or part.lower() in _SYSTEM_FILES for part in parts)
