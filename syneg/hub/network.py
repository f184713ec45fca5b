"""What went wrong between here and the Hub, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from syneg.errors import InputError


def cause_of(error: BaseException) -> BaseException:
    """Returns the first error of the chain that the network or the Hub raised."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HfHubHTTPError) or is_transport(seen):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


def is_transport(error: BaseException) -> bool:
    """Whether a connection failed. By name, since huggingface_hub 1 uses httpx and 2 uses httpx2."""
    return any(base.__name__ == "TransportError" for base in type(error).__mro__)


def is_cut(error: BaseException) -> bool:
    """Whether a connection failed under the Hub's newer upload protocol (Xet), which has no types of
    its own for it. That there is no connection by choice does not pass with time."""
    return isinstance(error, ConnectionError | TimeoutError) and not isinstance(error, OfflineModeIsEnabled)


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status that an error carries; None where it carries none."""
    response = getattr(error, "response", None)
    return response.status_code if response is not None else None


def short(error: BaseException) -> str:
    """Returns one line on what the network or the Hub said."""
    cause = cause_of(error)
    status = status_of(cause)
    if status is not None:
        message = getattr(cause, "server_message", None)
        return f"HTTP {status}" + (f", {' '.join(message.split())}" if message else "")
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


@contextmanager
def reading_errors(spec: str) -> Iterator[None]:
    """Turns what can happen while a data set is read, here or from the Hub, into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        known = isinstance(error, OSError | ValueError) or is_transport(cause_of(error))
        if not known:
            raise
        raise InputError(f"{spec!r}: cannot be read ({short(error)}).") from error


@contextmanager
def publishing_errors(repo_id: str) -> Iterator[None]:
    """Turns what the Hub's client raises into one line: what, where and how to mend it."""
    try:
        yield
    except InputError:
        raise
    except (LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        what = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else "there is no token"
        raise InputError(
            f"{repo_id}: {what}. Log in with `hf auth login`, or set HF_TOKEN, and be online."
        ) from None
    except Exception as error:
        known = isinstance(error, HfHubHTTPError | OSError | ValueError) or cause_of(error) is not error
        if not known and not is_transport(error):
            raise
        raise InputError(f"{repo_id}: {short(error)}. {_remedy(error)}") from error


def _remedy(error: BaseException) -> str:
    cause = cause_of(error)
    status = status_of(cause)
    if status == 401:
        return "The Hub does not know the token: log in with `hf auth login`, or set HF_TOKEN."
    if status == 403 or isinstance(cause, RepositoryNotFoundError):
        return "The token may not write there: use one with write access, or another --repo_id."
    if status == 412:
        return "Somebody else changed the repository meanwhile; look at it, then run this again."
    if status is None or status == 429 or status >= 500:
        return (
            "Run this again: a version is published whole or not at all, and only what the Hub does not "
            "have yet is sent."
        )
    return "The version was not published."
