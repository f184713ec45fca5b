"""`syneg compact`: a journal's files to one Parquet file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from syneg.config import ConfigParser


@dataclass
class CompactArguments:
    """Which journal."""

    journal: str = field(metadata={"help": "The journal's folder, as `syneg generate --journal` names it."})


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where there is no such folder, or another compaction is at work in it.
    """
    parser = ConfigParser(
        [CompactArguments],
        prog="syneg compact",
        description="Makes one Parquet file of a journal's finished files; what is being written is left "
        "alone. Reading gives the same before and after.",
    )
    (args,) = parser.parse(argv)

    from syneg.llm.compaction import compact_journal

    print("\n".join(compact_journal(args.journal).lines()))
    print(f"Next: the command that filled it goes on from it, with --journal {shlex.quote(args.journal)}")
