"""Publishing on the Hub: one commit holds a version whole, and a tag names it.

`HfApi.upload_folder` and `upload_large_folder` commit in several parts, so that a push that is cut
leaves a repository with some new and some old shards. Here large files are sent first, where they
are nobody's yet, and one commit makes them all visible. A push that is run again sends only what
the Hub does not have.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from syneg.errors import InputError
from syneg.hub.cards import THIS_FOLDER
from syneg.hub.folders import read_folder
from syneg.hub.model_cards import ModelCardInfo, model_card
from syneg.hub.network import cause_of, is_cut, is_transport, publishing_errors, short, status_of
from syneg.hub.reading import CARD, MANIFEST, FolderInfo

logger = logging.getLogger(__name__)

MODEL_FORMAT = "syneg-model"
ATTEMPTS = 4
"""How often a push is tried while the Hub is busy or the connection fails."""

LONGEST_WAIT = 300.0
"""A Hub that asks to wait for longer, in seconds, ends the push with an error that says so."""

T = TypeVar("T")


@dataclass(frozen=True)
class PushPlan:
    """A push, before anything is sent.

    Attributes:
        repo_id: Where to.
        repo_type: "dataset" or "model".
        files: Path in the repository -> the file here, or its contents.
        card: The card as it will be sent.
        tag: The revision's tag.
        message: The commit's message.
    """

    repo_id: str
    repo_type: str
    files: Mapping[str, Path | bytes]
    card: str
    tag: str | None
    message: str

    def sizes(self) -> dict[str, int]:
        """Returns the files' sizes, in bytes."""
        return {
            name: len(file) if isinstance(file, bytes) else file.stat().st_size
            for name, file in self.files.items()
        }


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        plan: What was asked for.
        url: The repository's page; None for a dry run.
        commit: The commit's id; None for a dry run.
        removed: Files of the version before that this one does not have.
    """

    plan: PushPlan
    url: str | None = None
    commit: str | None = None
    removed: list[str] = field(default_factory=list)


def push_dataset(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    tag: str | None = None,
) -> PushResult:
    """Publishes a data set folder.

    Args:
        folder: A folder written by `FolderWriter`; it is checked to be whole before anything is sent.
        repo_id: Where on the Hub.
        private: Whether a repository that is made now is private.
        dry_run: Send nothing.
        overwrite: Replace a repository that this package did not make, or move a tag that exists.
        tag: The revision's tag; ``v`` and the data set's version where it is None.

    Raises:
        InputError: Where the folder is not whole, the Hub refuses, or it cannot be reached.
    """
    info = read_folder(folder)
    version = info.manifest.get("version")
    plan = _plan(
        repo_id, "dataset", _dataset_files(info, repo_id), tag or (f"v{version}" if version else None)
    )
    return _publish(plan, private, dry_run, overwrite)


def push_model(
    folder: str | Path,
    repo_id: str,
    *,
    info: ModelCardInfo | None = None,
    private: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    tag: str | None = None,
) -> PushResult:
    """Publishes a SentenceTransformer folder.

    Args:
        folder: The folder, as `SentenceTransformer.save_pretrained` or a trainer writes it.
        repo_id: Where on the Hub.
        info: What the card says beyond the card that training left in the folder.
        private: As for `push_dataset`, like all that follow.
        dry_run: Send nothing.
        overwrite: Replace a repository that this package did not make, or move a tag that exists.
        tag: The revision's tag; none where it is None.

    Raises:
        InputError: Where it is no such folder, the Hub refuses, or it cannot be reached.
    """
    folder = Path(folder)
    if not (folder / "modules.json").is_file():
        raise InputError(f"{folder}: no SentenceTransformer folder (modules.json is missing).")
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_training_state(path.relative_to(folder))
    }
    info = info or ModelCardInfo(name=repo_id.rpartition("/")[2])
    files[CARD] = model_card(replace(info, repo_id=repo_id, revision=tag), folder).encode()
    files[MANIFEST] = _manifest({"format": MODEL_FORMAT}, files)
    return _publish(_plan(repo_id, "model", files, tag), private, dry_run, overwrite)


def _is_training_state(path: Path) -> bool:
    """Checkpoints, optimizer states and pickles: needed to go on training, not to use a model."""
    if any(part.startswith((".", "checkpoint-")) for part in path.parts):
        return True
    return path.suffix in (".pt", ".pth", ".pkl") or path.name == "training_args.bin"


def _dataset_files(info: FolderInfo, repo_id: str) -> dict[str, Path | bytes]:
    card = (info.path / CARD).read_text(encoding="utf-8")
    # Cards of earlier versions named a repository that nobody had chosen.
    for named in (info.manifest.get("repo_id"), THIS_FOLDER, f"syneg/{info.manifest.get('name')}"):
        card = card.replace(f'load_dataset("{named}"', f'load_dataset("{repo_id}"')
    files: dict[str, Path | bytes] = {
        name: info.path / name
        for splits in info.configs.values()
        for split in splits.values()
        for name in split.files
    }
    files[CARD] = card.encode()
    files[MANIFEST] = _manifest({**info.manifest, "repo_id": repo_id}, files)
    return files


def _manifest(manifest: Mapping[str, Any], files: Mapping[str, Any]) -> bytes:
    """The manifest names the files, so that the next version knows which of them are ours."""
    names = sorted({*files, MANIFEST})
    return json.dumps({**manifest, "files": names}, ensure_ascii=False, indent=1).encode()


def _plan(repo_id: str, repo_type: str, files: Mapping[str, Path | bytes], tag: str | None) -> PushPlan:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"--repo_id {repo_id!r}: {' '.join(str(error).split())}") from None
    if "/" not in repo_id:
        raise InputError(f"--repo_id {repo_id!r}: write owner/name, as in syneg/msmarco-hardneg.")
    card = files[CARD]
    text = card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")
    return PushPlan(repo_id, repo_type, files, text, tag, f"Upload {tag or repo_type} with syneg")


def _publish(plan: PushPlan, private: bool, dry_run: bool, overwrite: bool) -> PushResult:
    if dry_run:
        return PushResult(plan)
    api = HfApi(library_name="syneg")
    with publishing_errors(plan.repo_id):
        return _patiently(lambda: _attempt(api, plan, private, overwrite))


def _attempt(api: HfApi, plan: PushPlan, private: bool, overwrite: bool) -> PushResult:
    """One try; begins with a look at the repository, so that it also resumes the try before."""
    where: dict[str, Any] = {"repo_id": plan.repo_id, "repo_type": plan.repo_type}
    api.whoami(cache=True)  # a token that is not valid is better found before a long upload
    url = api.create_repo(**where, private=private, exist_ok=True)
    info = api.repo_info(**where)
    head = info.sha
    if private and not info.private:
        raise InputError(
            f"{plan.repo_id}: the repository exists and is public, so nothing was sent. Make it private in "
            "its settings first, or leave out --private."
        )
    present = [name for name in api.list_repo_files(**where) if name != ".gitattributes"]
    ours = _our_files(api, plan, present, head)
    if ours is None and present and not overwrite:
        raise InputError(
            f"{plan.repo_id}: the repository has files that syneg did not publish "
            f"({', '.join(present[:3])}). Choose another --repo_id, or replace them with --overwrite."
        )
    tags = {ref.name for ref in api.list_repo_refs(**where).tags}
    if plan.tag in tags and not overwrite:
        raise InputError(
            f"{plan.repo_id}: {plan.tag} is published already. Raise the data set's version or pass "
            "another --tag; --overwrite moves the tag."
        )
    stale = sorted(set(present if ours is None else ours) & set(present) - plan.files.keys())
    commit = api.create_commit(
        **where,
        operations=[
            *(CommitOperationDelete(name, is_folder=False) for name in stale),
            *(CommitOperationAdd(name, file) for name, file in plan.files.items()),
        ],
        commit_message=plan.message,
        parent_commit=head,
    )
    if plan.tag:
        if plan.tag in tags:
            api.delete_tag(**where, tag=plan.tag)
        api.create_tag(**where, tag=plan.tag, revision=commit.oid)
    return PushResult(plan, str(url), commit.oid, stale)


def _our_files(api: HfApi, plan: PushPlan, present: list[str], head: str | None) -> list[str] | None:
    """Returns the files that an earlier push of ours sent; None where the repository is not ours."""
    if MANIFEST not in present:
        return None
    path = api.hf_hub_download(plan.repo_id, MANIFEST, repo_type=plan.repo_type, revision=head)
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        return None
    expected = json.loads(plan.files[MANIFEST])["format"]  # type: ignore[arg-type]
    if not isinstance(manifest, dict) or manifest.get("format") != expected:
        return None
    return [str(name) for name in manifest.get("files", [])]


def _patiently(attempt: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Tries again while the Hub is busy or the connection fails; what was sent is not sent again."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except Exception as error:
            wait = _wait(error, number)
            if wait is None or wait > LONGEST_WAIT or number == ATTEMPTS:
                raise
            logger.warning("%s; trying again in %.0f s (%d of %d)", short(error), wait, number, ATTEMPTS - 1)
            sleep(wait)
    raise AssertionError("unreachable")


def _wait(error: BaseException, number: int) -> float | None:
    """Returns how long to wait before the next try, in seconds; None where it would be of no use."""
    cause = cause_of(error)
    backoff = min(2.0**number, 60.0)
    if is_transport(cause) or is_cut(cause):
        return backoff
    status = status_of(cause)
    if status is None or not (status == 429 or status >= 500) or status == 507:
        return None
    asked = cause.response.headers.get("retry-after", "")  # type: ignore[attr-defined]
    return float(asked) if asked.isdigit() else backoff
