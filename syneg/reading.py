"""Reading what people bring: lines of text, JSON objects, numbers. Bad input is one clear line.

All readers of text files go through here, so that a byte order mark, a wrong encoding, a compressed file,
half of a surrogate pair or a key that stands twice is met in the same way whatever the file is for.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from syneg.errors import InputError

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
"""File endings that are decompressed on the way."""

MAX_RELEVANCE = 1_000_000
"""Above this the tools that measure rankings run out of memory or range."""

_KINDS = {
    list: "list",
    str: "string",
    int: "number",
    float: "number",
    bool: "truth value",
    type(None): "null",
}
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
BOM = b"\xef\xbb\xbf"
"""UTF-8's byte order mark, with which Windows programs begin a file."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def open_binary(path: str | Path) -> BinaryIO:
    """Opens a file for reading; ``.gz`` and ``.zst`` are decompressed on the way.

    Raises:
        InputError: Where it cannot be opened.
    """
    path = Path(path)
    try:
        ending = path.suffix.lower()
        if ending not in COMPRESSED:
            return open(path, "rb")
        # Opened first: an error then names the reason as for any other file.
        raw = open(path, "rb")  # noqa: SIM115
        return io.BufferedReader(cast(Any, pa.CompressedInputStream(raw, COMPRESSED[ending])))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}).") from None


def text_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file, each with its number (from 1) and its line end.

    A byte order mark is taken away; the end of a line is a line feed.

    Raises:
        InputError: Where the file cannot be opened or decompressed, or is not UTF-8; names the line.
    """
    number = 0
    with open_binary(path) as file:
        lines = iter(file)
        while True:
            try:
                line = next(lines, None)
            except (OSError, EOFError) as error:
                raise InputError(f"{path}, line {number + 1}: cannot be read ({reason(error)}).") from None
            if line is None:
                return
            number += 1
            if number == 1:
                line = line.removeprefix(BOM)
            yield number, utf8(line, f"{path}, line {number}")


def read_text(path: str | Path) -> str:
    """Returns the whole text of a UTF-8 file, without a byte order mark.

    Raises:
        InputError: As `text_lines`.
    """
    return "".join(line for _, line in text_lines(path))


def utf8(data: bytes, where: str) -> str:
    """Returns bytes as text.

    Raises:
        InputError: Where they are not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 (byte 0x{data[error.start]:02x} at place {error.start + 1}). "
            "Save the file as UTF-8."
        ) from None


def parse_json(text: str | bytes, where: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
        InputError: Where it is none, is nested too deeply, or has a key twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_keys_once)
    except RecursionError:
        raise InputError(f"{where}: not JSON that can be read (nested too deeply).") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({getattr(error, 'msg', None) or reason(error)}).") from None


def json_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Returns the JSON object of a line.

    Raises:
        InputError: As `parse_json`, and where it is JSON but no object.
    """
    record = parse_json(text, where)
    if not isinstance(record, dict):
        hint = "; write one object a line" if isinstance(record, list) else ""
        raise InputError(f"{where}: expected a JSON object, found a {_KINDS[type(record)]}{hint}.")
    return record


def json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of a JSON Lines file, each with where it stands; empty lines are passed over.

    Raises:
        InputError: As `text_lines` and `json_object`.
    """
    for number, line in text_lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, json_object(line, where)


def whole_text(text: str) -> str:
    """Returns a text with half surrogate pairs, which have no UTF-8, replaced by U+FFFD.

    JSON can write them (``\\ud83d``), and a text cut in the middle of an emoji ends with one.
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    # By way of UTF-16, in which two halves that stand side by side are one character.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_blank(text: str) -> bool:
    """Returns whether nothing is seen of a text: blanks, controls and marks of no width alone."""
    return all(unicodedata.category(letter) in _UNSEEN for letter in text)


def text_of(value: Any, column: str, where: str) -> str:
    """Returns a text; null is a text without characters.

    Raises:
        InputError: For anything else: a notation of a list or an object never becomes text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {column!r} must be a text, found {shown(value)}. Write it as a string.")
    return whole_text(value)


def id_of(value: Any, column: str, where: str) -> str:
    """Returns an id as a string; whole numbers are ids, too.

    Raises:
        InputError: Where it is missing, blank, or neither a string nor a whole number.
    """
    if isinstance(value, str) and value.strip():
        return whole_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{where}: {column!r} must be a string or a whole number, found {shown(value)}.")


def relevance_of(value: Any, where: str) -> float:
    """Returns the relevance of a judgement; a whole number as an int, so that 1.0 and 1 are the same.

    Args:
        value: A number, or a string that holds one.
        where: Where it stands.

    Raises:
        InputError: Where it is no finite number, or one of more than `MAX_RELEVANCE`.
    """
    number = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    # NaN compares false with everything.
    if number is None or not abs(number) <= MAX_RELEVANCE:
        raise InputError(
            f"{where}: expected a finite number of at most {MAX_RELEVANCE:,} as relevance, "
            f"found {shown(value)}."
        )
    return int(number) if number == int(number) else float(number)


def columns_seen(names: Iterable[Any]) -> str:
    """Returns column names for an error, in one line however they are written."""
    return ", ".join(repr(str(name))[1:-1] for name in names)[:300] or "nothing"


def shown(value: Any) -> str:
    """Returns a value for an error: its kind and its beginning, in one line."""
    if value is None:
        return "nothing"
    try:
        notation = f"{value!r:.40}"
    except (ValueError, RecursionError):  # an integer of more digits than Python prints; nested too deeply
        return f"a {type(value).__name__}"
    return f"{notation} ({type(value).__name__})"


def reason(error: BaseException) -> str:
    """Returns what an exception says, in one line."""
    words = " ".join(str(getattr(error, "strerror", None) or error).split())
    return words[:160] or type(error).__name__


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return record
