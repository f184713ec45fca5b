"""`syneg gate`: rows to rows that passed the gates, without generating anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.rows import SYNTHETIC
from syneg.writing.arguments import GenerationArguments

if TYPE_CHECKING:
    from syneg.building import Part

_BASICS = (
    *("dataset", "split", "gates", "teacher", "teacher_kind", "teacher_margin", "language", "judge_of"),
    *(
        "judge_engine",
        "judge_llm",
        "judge_recordings",
        "audit",
        "engine",
        "llm",
        "dry_run",
        "seed",
        "overwrite",
    ),
)
"""What ``--help`` shows; ``--help all`` shows all."""


@dataclass
class GateRowsArguments:
    """The rows that are gated."""

    dataset: str = field(metadata={"help": "Rows to gate: a folder that syneg wrote, or a Hub id."})
    split: str = field(default="train", metadata={"help": "The data set's split."})


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the rows or a gate cannot be used.
    """
    from syneg.building import FolderArguments, gate_parts, new_card, write_folder
    from syneg.commands.endings import look_and_train, outcome, told
    from syneg.planning import problems

    parser = ConfigParser(
        [FolderArguments, GateRowsArguments, GatingArguments, GenerationArguments],
        basics=_BASICS,
        prog="syneg gate",
        description="Sends the rows of a data set through the gates and writes a new data set folder.",
    )
    output, given, args, generation = parser.parse(argv)
    if Path(given.dataset).absolute() == Path(output.output).absolute():
        raise InputError(f"--output is the folder that is read ({output.output}); give another.")
    journal = Path(generation.journal or f"{Path(output.output)}-journal")
    parts = gate_parts(given.dataset, given.split, args, generation, journal, output.seed)
    if generation.dry_run:
        print(*(line for part in parts for line in _plan(part, args, generation, journal)), sep="\n")
        for line in problems(parts[0].stages):
            print(line)
        return
    card = new_card(output, given.dataset, dataset=given.dataset)
    reports = write_folder(parts, output, card, audit=args)
    print("\n".join([*told(reports), outcome(output.output, reports)]))
    print("\n".join(look_and_train(output.output, given.split)))


def _plan(part: Part, args: GatingArguments, generation: GenerationArguments, journal: Path) -> list[str]:
    """Returns what gating a split would take, as lines."""
    from syneg.planning import judge_step, table, teacher_step
    from syneg.text import estimate_tokens

    counts: Counter[str] = Counter()
    tokens = 0
    for draft in part.drafts():
        counts.update(one["source"] for one in draft.row["negatives"])
        tokens += sum(estimate_tokens(one["text"]) for one in draft.row["negatives"])
    every, written = sum(counts.values()), counts[SYNTHETIC]
    steps = []
    if "teacher" in args.wanted and args.teacher:
        steps.append(teacher_step(args, every, tokens / max(every, 1)))
    if "judge" in args.wanted:
        judged = {"all": every, "mined": every - written}.get(args.judge_of, written)
        work = f"at most {judged:,} negatives"
        step = judge_step(part.pairs, args, generation, journal / "judge", judged, work)
        steps += [step] if step is not None else []
    return [
        f"{part.split}: {len(part.pairs):,} rows, {every:,} negatives",
        *table(steps, generation.gpu_price),
    ]
