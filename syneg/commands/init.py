"""`syneg init`: a source to a commented YAML file for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.sources import SourceArguments


@dataclass
class InitArguments:
    """The file that is written, and the LLM that helps, if any."""

    output: str | None = field(
        default=None, metadata={"help": "The YAML file to write; NAME.yaml here where not given."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Whether to replace a file that is there."})
    engine: str | None = field(
        default=None,
        metadata={"help": "With --llm: how it is asked, as of `syneg build`; vllm if not given."},
    )
    llm: str | None = field(
        default=None, metadata={"help": "An LLM that proposes domains and kinds of text by a sample."}
    )
    base_urls: list[str] | None = field(
        default=None, metadata={"help": "For the engine openai: its servers, as in http://localhost:8000/v1."}
    )
    engine_options: str | None = field(
        default=None, metadata={"help": "Passed through to the engine, as JSON or a=1,b=2."}
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Writes a configuration for a source: syneg init SOURCE [--output FILE.yaml] [--llm MODEL].

    Raises:
        InputError: Where the source, the file or the engine cannot be used.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words = ["--source", *words]
    parser = ConfigParser(
        [InitArguments, SourceArguments],
        prog="syneg init",
        description="Writes a commented YAML file for a source, for `syneg build --config`: syneg init "
        "SOURCE [--output FILE.yaml] [--llm MODEL]. Language and kinds of text are read off a sample.",
    )
    args, where = parser.parse(words)
    if not any(word.split("=")[0] in ("--source", "--config") for word in words):
        raise InputError("syneg init SOURCE: name what a configuration is written for, as in data/mine.")

    from syneg.commands.endings import next_steps
    from syneg.describing import describe_source, propose_description, yaml_text
    from syneg.llm.arguments import LLMArguments
    from syneg.llm.engines import check_ready
    from syneg.sources import source_of

    llm: LLMArguments | None = None
    if args.llm is not None or args.engine is not None:
        given = {key: value for key, value in vars(args).items() if key not in ("output", "overwrite")}
        llm = LLMArguments(**{key: value for key, value in given.items() if value is not None})
        if llm.engine == "recorded":
            raise InputError("--engine recorded has nothing for a new source; take vllm, openai or ray.")
        check_ready(llm)
    if args.output is not None:
        _check(Path(args.output), args.overwrite)
    source = source_of(where)
    output = Path(args.output or f"{source.name}.yaml")
    _check(output, args.overwrite)
    seen = describe_source(source)
    if llm is not None:
        seen = propose_description(source, seen, llm, output.with_name(f"{output.stem}-init-journal"))
        if seen.proposed_by is None:
            print(f"{llm.llm} gave no answer that can be read: domains and kinds are general ones.")
    text = yaml_text(source, seen, {**vars(where), **_named(args)})
    temporary = output.with_name(f".{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror or error}).") from error
    print(*source.notes, sep="\n", end="\n" * bool(source.notes))
    print(
        f"{output}: {source.name} has {len(source.corpus):,} documents, {len(source.queries):,} queries, "
        f"language {seen.language!r}, query kind {seen.query_kind!r}, document kind {seen.document_kind!r}. "
        "Read it, and say better what you know better."
    )
    folder = f"out/{output.stem}"
    if not source.qrels:
        asked = f"out/{output.stem}-asked"
        print(
            "It has no pairs of a query and a document, which negatives are made for: an LLM writes queries."
        )
        print(
            *next_steps(
                ("syneg", "ask", "--source", where.source, "--output", asked, "--dry_run"),
                ("syneg", "build", "--config", str(output), "--source", asked, "--output", folder),
                one_of=False,
            ),
            sep="\n",
        )
        return
    print(*next_steps(("syneg", "build", "--config", str(output), "--output", folder, "--dry_run")), sep="\n")


def _named(args: InitArguments) -> dict[str, Any]:
    from syneg.config import parse_mapping, split_commas

    return {
        "engine": args.engine,
        "llm": args.llm,
        "base_urls": split_commas(args.base_urls),
        "engine_options": parse_mapping(args.engine_options, "engine_options"),
    }


def _check(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; give the name of a YAML file.")
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"--output {output}: give the name of a YAML file, as in {output}.yaml.")
    if output.exists() and not overwrite:
        raise InputError(f"--output {output}: exists. Choose another, or replace it with --overwrite.")
