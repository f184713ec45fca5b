from __future__ import annotations

import shutil
from pathlib import Path


def with_file(folder: Path, copy: Path, name: str, content: bytes) -> Path:
    """Copies a source with one of its files replaced, and returns the copy."""
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(content)
    return copy
