"""Who may write to `hub_server`, its errors, and what can be made to go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class User:
    name: str
    can_write: frozenset[str]
    """Namespaces, of users and organisations, that the token may write to."""


@dataclass
class Fault:
    """What goes wrong with requests that match.

    Attributes:
        method: The request's method.
        path: A pattern that is searched for in the path.
        skip: How many requests it lets pass before.
        times: How many requests it happens to.
        status: Answered with this status.
        headers: Headers of that answer.
        cut: The connection is closed after this many bytes of the request's body.
        lose_reply: The request is carried out, then the connection is closed without an answer.
    """

    method: str
    path: str
    skip: int = 0
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "made to fail"
    cut: int | None = None
    lose_reply: bool = False


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.extra = status, message, code, extra


class Cut(Exception):
    """The connection is to be closed without an answer."""
