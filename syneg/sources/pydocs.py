"""The embedded source: the documentation of the Python packages installed here.

For every public function, class, method and property of the standard library, numpy, scipy, pandas
and torch, the query is the first paragraph of the docstring; the document is the qualified name and
the rest. Pairs for which the project ships a recorded completion are the training split.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from syneg.resources import resource_path
from syneg.sources.source import CORPUS_FEATURES, QUERY_FEATURES, Source

RECORDINGS = Path(resource_path("package:syneg/demo/pydocs-train.jsonl"))
"""Recorded completions for the training split."""

TEST_SIZE = 300
# Shorter queries do not tell one function from another; shorter documents say nothing, longer ones
# are cut by the encoder.
QUERY_WORDS = (4, 25)
DOCUMENT_CHARACTERS = (190, 3400)

# Importing these opens a browser or a window, prints, or starts tests.
_NOT_IMPORTED = {
    "antigravity",
    "idlelib",
    "lib2to3",
    "site",
    "test",
    "this",
    "tkinter",
    "turtle",
    "turtledemo",
}
_STANDARD = """
    collections.abc concurrent.futures email.message html.parser http.client http.cookies http.server
    importlib.metadata importlib.resources logging.handlers multiprocessing.pool os.path unittest.mock
    urllib.error urllib.parse urllib.request urllib.robotparser xml.dom.minidom xml.etree.ElementTree
    xml.sax.saxutils xmlrpc.client
"""
_INSTALLED = """
    numpy numpy.ma numpy.linalg numpy.fft numpy.random numpy.polynomial numpy.testing numpy.lib numpy.char
    numpy.strings
    scipy.cluster.hierarchy scipy.cluster.vq scipy.constants scipy.datasets scipy.differentiate scipy.fft
    scipy.integrate scipy.interpolate scipy.io scipy.linalg scipy.ndimage scipy.optimize scipy.signal
    scipy.sparse scipy.sparse.csgraph scipy.sparse.linalg scipy.spatial scipy.spatial.distance scipy.special
    scipy.stats scipy.stats.qmc
    pandas pandas.api.types pandas.testing
    torch torch.nn torch.nn.functional torch.nn.init torch.nn.utils torch.optim torch.optim.lr_scheduler
    torch.utils.data torch.distributions torch.distributed torch.linalg torch.fft torch.special
    torch.autograd torch.sparse
"""


def pydocs_source() -> Source:
    """Builds the source from what is installed here.

    Returns:
        About 4,000 documents with one query each; split "train" holds the pairs that have a recorded
        completion and whose first paragraph has not changed since, "test" 300 of the others, chosen
        by a hash of the qualified name. `notes` says what was left out.
    """
    recorded = {}
    with RECORDINGS.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            recorded[record["query_id"]] = record["query"]
    notes: list[str] = []
    entries = _collect(recorded, notes)
    train = [name for name, query in recorded.items() if name in entries and entries[name][0] == query]
    if len(train) < len(recorded):
        notes.append(
            f"{len(recorded) - len(train)} of {len(recorded)} recorded completions are for docstrings that "
            "have changed or are missing here; they are left out of the training split."
        )
    others = sorted((n for n in entries if n not in recorded), key=_hash)
    splits = {"train": train, "test": sorted(others[:TEST_SIZE])}
    names = sorted(entries)
    return Source(
        name="pydocs",
        corpus=Dataset.from_dict(
            {"id": names, "title": names, "text": [entries[name][1] for name in names]},
            features=CORPUS_FEATURES,
        ),
        queries=Dataset.from_dict(
            {"id": names, "text": [entries[name][0] for name in names]}, features=QUERY_FEATURES
        ),
        qrels={split: {name: {name: 1} for name in chosen} for split, chosen in splits.items()},
        notes=notes,
    )


def _collect(recorded: dict[str, str], notes: list[str]) -> dict[str, tuple[str, str]]:
    """Returns qualified name -> (query, document), each query once.

    Where several names share a query, one with a recording goes before the others, then the first in
    the order of the modules.
    """
    entries: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for name in recorded:
        entry = _entry(_resolve(name))
        if entry is not None and entry[0] not in seen:
            entries[name] = entry
            seen.add(entry[0])
    for name, thing in _walk(notes):
        entry = _entry(thing)
        if entry is None or name in entries or entry[0] in seen:
            continue
        query, document = entry
        if (
            QUERY_WORDS[0] <= len(query.split()) <= QUERY_WORDS[1]
            and DOCUMENT_CHARACTERS[0] <= len(document) <= DOCUMENT_CHARACTERS[1]
        ):
            entries[name] = entry
            seen.add(query)
    return entries


def _walk(notes: list[str]) -> Iterator[tuple[str, Any]]:
    standard = sorted(n for n in sys.stdlib_module_names if not n.startswith("_") and n not in _NOT_IMPORTED)
    modules = [*standard, *_STANDARD.split(), *_INSTALLED.split()]
    absent: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            try:
                loaded = importlib.import_module(module)
            except ImportError:
                # Some modules of the standard library exist on one system only (winreg, msvcrt).
                package = module.partition(".")[0]
                if module in _INSTALLED.split() and package not in absent:
                    absent.add(package)
                    notes.append(f"{module} cannot be imported; its documentation is left out.")
                continue
            yield from _members(module, loaded)


def _members(module: str, loaded: Any) -> Iterator[tuple[str, Any]]:
    package = module.partition(".")[0]
    declared = getattr(loaded, "__all__", None)
    for name in sorted(declared if declared is not None else vars(loaded)):
        thing = getattr(loaded, name, None)
        if name.startswith("_") or not callable(thing):
            continue
        home = getattr(thing, "__module__", None) or ""
        if declared is None and home.partition(".")[0] != package:
            continue
        yield f"{module}.{name}", thing
        if inspect.isclass(thing):
            for attribute in sorted(vars(thing)):
                if not attribute.startswith("_"):
                    yield f"{module}.{name}.{attribute}", getattr(thing, attribute, None)


def _entry(thing: Any) -> tuple[str, str] | None:
    """Returns (first paragraph, the rest) of a docstring that has both."""
    documented = callable(thing) or inspect.isdatadescriptor(thing)
    docstring = inspect.getdoc(thing) if documented else None
    if not docstring:
        return None
    # A signature may show an object's address, another in every process.
    docstring = re.sub(r"\b0x[0-9a-f]{8,}(?=>)", "0x", docstring)
    first, _, rest = docstring.strip().partition("\n\n")
    query = " ".join(first.split())
    return (query, rest.strip()) if query and rest.strip() else None


def _resolve(name: str) -> Any:
    """Returns what a qualified name stands for, or None."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part, None)
        return thing
    return None


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
