"""`syneg push`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.hub.arguments import PushArguments
from syneg.hub.folders import MANIFEST


def main(argv: Sequence[str] | None = None) -> None:
    """Publishes a data set folder or a model folder, or shows what would be published."""
    parser = ConfigParser(PushArguments, prog="syneg push", description=main.__doc__)
    (args,) = parser.parse(argv)
    from syneg.hub.publish import push_dataset, push_model

    folder = Path(args.folder)
    if not folder.is_dir():
        raise InputError(f"--folder {args.folder!r}: no such folder.")
    push = push_model if (folder / "modules.json").is_file() else push_dataset
    if push is push_dataset and not (folder / MANIFEST).is_file():
        raise InputError(
            f"--folder {args.folder!r}: neither a data set folder ({MANIFEST}) nor a SentenceTransformer "
            "folder (modules.json)."
        )
    done = push(
        folder,
        args.repo_id,
        private=args.private,
        dry_run=args.dry_run,
        overwrite=args.overwrite,
        tag=args.tag,
    )
    if args.dry_run:
        print(done.plan.card)
    for name, size in done.plan.sizes().items():
        print(f"{size:>15,}  {name}")
    if args.dry_run:
        print(f"Dry run: nothing was sent to {args.repo_id}.")
        return
    for name in done.removed:
        print(f"{'removed':>15}  {name}")
    tagged = f", tag {done.plan.tag}" if done.plan.tag else ", no tag (the data set has no version)"
    print(f"Published {done.url} (commit {done.commit}{tagged}).")
