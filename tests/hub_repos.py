"""Repositories in memory, for `hub_server`: commits of whole trees, tags, git's hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        content = f"oid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return f"version https://git-lfs.github.com/spec/v1\n{content}".encode()

    @property
    def git_oid(self) -> str:
        content = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Commit:
    oid: str
    files: dict[str, File]
    message: str


@dataclass
class Repo:
    kind: str
    name: str
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, File], message: str) -> Commit:
        seed = repr(
            (self.kind, self.name, len(self.commits), sorted((p, f.git_oid) for p, f in files.items()))
        )
        self.commits.append(Commit(hashlib.sha1(seed.encode()).hexdigest(), files, message))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        if revision in ("main", "refs/heads/main"):
            return self.commits[-1]
        oid = self.tags.get(revision.removeprefix("refs/tags/"), revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)


def entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Files and folders of a commit by path, as the tree and paths-info routes show them."""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        entry = {"type": "file", "oid": file.git_oid, "size": len(file.content), "path": path}
        if file.lfs:
            entry["lfs"] = {
                "oid": file.sha256,
                "size": len(file.content),
                "pointerSize": len(file.pointer),
            }
        entries[path] = entry
        folder = path.rpartition("/")[0]
        while folder:
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
            folder = folder.rpartition("/")[0]
    return entries
