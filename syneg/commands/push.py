"""`syneg push`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syneg.config import ConfigParser, split_commas
from syneg.errors import InputError

if TYPE_CHECKING:
    from syneg.hub.model_cards import ModelCardInfo
    from syneg.hub.publish import PushResult


@dataclass
class PushArguments:
    """What to publish, and where. The token comes from ``HF_TOKEN`` or from ``hf auth login``."""

    folder: str = field(metadata={"help": "A data set folder, or a SentenceTransformer folder."})
    repo_id: str = field(metadata={"help": "Where on the Hub, as in syneg/msmarco-hardneg."})
    private: bool = field(default=False, metadata={"help": "Whether a repository made now is private."})
    dry_run: bool = field(default=False, metadata={"help": "Show the card and the files; send nothing."})
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace a repository that is not ours, or a version published before."},
    )
    tag: str | None = field(
        default=None, metadata={"help": "The revision's tag; by default v and the data set's version."}
    )


@dataclass
class ModelCardArguments:
    """What the card of a model says; for a data set, its folder has it all."""

    base_model: str | None = field(
        default=None, metadata={"help": "The model that training began with, as a Hub id."}
    )
    trained_on: list[str] | None = field(
        default=None, metadata={"help": "Data sets it was trained on, as Hub ids."}
    )
    licence: str | None = field(default=None, metadata={"help": "Licence of the model, as in apache-2.0."})
    model_results: str | None = field(
        default=None, metadata={"help": "A folder of MTEB result files of the model, for the card."}
    )
    base_model_results: str | None = field(
        default=None, metadata={"help": "The same of the base model, to compare with."}
    )

    def __post_init__(self) -> None:
        self.trained_on = split_commas(self.trained_on) or None


def main(argv: Sequence[str] | None = None) -> None:
    """Publishes a data set folder or a model folder, or shows what would be published."""
    parser = ConfigParser((PushArguments, ModelCardArguments), prog="syneg push", description=main.__doc__)
    args, card = parser.parse(argv)
    done = _push(args, card)
    if args.dry_run:
        print(done.plan.card)
    for name, size in done.plan.sizes().items():
        print(f"{size:>15,}  {name}")
    if args.dry_run:
        print(f"Dry run: nothing was sent to {args.repo_id}. Leave out --dry_run to publish it.")
        return
    for name in done.removed:
        print(f"{'removed':>15}  {name}")
    tagged = f", tag {done.plan.tag}" if done.plan.tag else ", no tag (the data set has no version)"
    print(f"Published {done.url} (commit {done.commit}{tagged}).")
    load = "load_dataset" if done.plan.repo_type == "dataset" else "SentenceTransformer"
    revision = f', revision="{done.plan.tag}"' if done.plan.tag else ""
    print(f'Next: {load}("{args.repo_id}"{revision})')


def _push(args: PushArguments, card: ModelCardArguments) -> PushResult:
    from syneg.hub.publish import push_dataset, push_model
    from syneg.hub.reading import MANIFEST

    folder = Path(args.folder)
    if not folder.is_dir():
        raise InputError(f"--folder {args.folder!r}: no such folder.")
    how: dict[str, Any] = {
        "private": args.private,
        "dry_run": args.dry_run,
        "overwrite": args.overwrite,
        "tag": args.tag,
    }
    if (folder / "modules.json").is_file():
        return push_model(folder, args.repo_id, info=_card_info(args.repo_id, card), **how)
    given = [name for name, value in vars(card).items() if value is not None]
    if given:
        raise InputError(f"--{given[0]} is for models; {args.folder!r} is none (modules.json is missing).")
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"--folder {args.folder!r}: neither a data set folder ({MANIFEST}) nor a SentenceTransformer "
            "folder (modules.json)."
        )
    return push_dataset(folder, args.repo_id, **how)


def _card_info(repo_id: str, card: ModelCardArguments) -> ModelCardInfo | None:
    """Returns what the command line says of the model; None where it says nothing."""
    if all(value is None for value in vars(card).values()):
        return None
    from syneg.hub.model_cards import ModelCardInfo, read_mteb_results

    if card.base_model_results and not card.model_results:
        raise InputError("--base_model_results needs --model_results to compare with.")
    results = read_mteb_results(card.model_results, card.base_model_results) if card.model_results else []
    return ModelCardInfo(
        name=repo_id.rpartition("/")[2],
        base_model=card.base_model,
        datasets=card.trained_on or [],
        licence=card.licence,
        results=results,
    )
