"""Building: lists of stages over one run and one writer, and the one card of what comes out.

`build`, `mine`, `generate` and `gate` are such lists. A split is a `Part`: its pairs, and the stages that
they go through.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from syneg.config import ConfigParser, Given, OutputArguments, read_yaml, split_commas
from syneg.encoders import public_name
from syneg.errors import InputError, unknown
from syneg.gating.arguments import GatingArguments
from syneg.gating.stage import Gating
from syneg.hub.cards import DatasetCardInfo
from syneg.hub.folders import FREE_BYTES, FolderWriter, check_names, check_output, load_split
from syneg.hub.reading import read_manifest
from syneg.llm.estimate import Estimate, estimate
from syneg.llm.journal import Journal
from syneg.mining.arguments import MiningArguments
from syneg.mining.stage import Mining
from syneg.planning import (
    Reckoning,
    by_llm,
    judge_step,
    lengths,
    problems,
    prompt_lines,
    table,
    teacher_step,
)
from syneg.resources import resource_path
from syneg.rows import MIRROR, Row, check_rows
from syneg.sources import Source, SourceArguments, source_of
from syneg.sources.overlap import shared_judgements
from syneg.sources.source import TEST
from syneg.sources.tables import plain_name
from syneg.stages import Draft, RowPairs, SizedPairs, Stage, pair_drafts, run
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from syneg.writing.stage import Mirroring, Writing
from syneg.writing.strategies import find_strategy

Arguments = TypeVar("Arguments")

_UNTOLD = {
    *("journal", "mining_cache", "mining_device", "encode_batch_size", "search_block", "engine_options"),
    *("base_urls", "concurrency", "shard", "dry_run", "dry_run_prompts", "tokens_per_second", "gpu_price"),
    *("teacher_batch_size", "teacher_device", "audit", "audit_encoder"),
}
"""Arguments that the command line on a card leaves out."""


@dataclass
class BuildArguments:
    """What a data set is called and made of, beyond its stages."""

    name: str = field(default="hardneg", metadata={"help": "The data set's name."})
    version: str = field(default="1.0.0", metadata={"help": "The data set's version."})
    licence: str | None = field(
        default=None, metadata={"help": "The data set's licence, as the Hub names it (apache-2.0, other)."}
    )
    attribution: str | None = field(
        default=None,
        metadata={"help": "Whose the source's texts are, and under what terms: a sentence on the card."},
    )
    languages: list[str] = field(
        default_factory=lambda: ["en"], metadata={"help": "ISO 639 codes of its languages."}
    )
    source_datasets: list[str] = field(
        default_factory=list, metadata={"help": "Hub ids of the data sets it derives from."}
    )
    triplet_negatives: int = field(
        default=4, metadata={"help": "Negatives a row of the configuration 'triplet'; shorter rows are out."}
    )
    pairs_without_negatives: str = field(
        default="error",
        metadata={
            "help": "What happens to a pair that ends without negatives: error, keep or drop (counted).",
            "choices": ["error", "keep", "drop"],
        },
    )

    def __post_init__(self) -> None:
        self.languages = split_commas(self.languages)
        self.source_datasets = split_commas(self.source_datasets)
        if self.triplet_negatives < 1:
            raise InputError(f"--triplet_negatives is {self.triplet_negatives}; it must be 1 or more.")


@dataclass
class StageArguments(BuildArguments, SourceArguments, MiningArguments, GenerationArguments, GatingArguments):
    """Everything that determines a data set."""

    seed: int = 0

    def __post_init__(self) -> None:
        for stage in (BuildArguments, SourceArguments, MiningArguments, GenerationArguments, GatingArguments):
            stage.__post_init__(self)


@dataclass
class FolderArguments(OutputArguments):
    """The data set folder that is written."""

    overwrite: bool = field(
        default=False, metadata={"help": "Whether to replace a data set folder that is there already."}
    )
    repo_id: str | None = field(
        default=None, metadata={"help": "Hub id under which it is to be published, for the card's examples."}
    )


def part_of(arguments: Any, kind: type[Arguments]) -> Arguments:
    """Returns the arguments of one stage out of those of all."""
    names = [one.name for one in dataclasses.fields(kind) if one.init]  # type: ignore[arg-type]
    return kind(**{name: getattr(arguments, name) for name in names})


def data_set_parser(*further: Any, kind: type[ConfigParser] = ConfigParser, **kwargs: Any) -> ConfigParser:
    """Returns the parser of a data set's arguments, with further dataclasses at its end."""
    stages = [BuildArguments, SourceArguments, MiningArguments, GenerationArguments, GatingArguments]
    return kind([*stages, *further], **kwargs)


class ShippedConfigParser(ConfigParser):
    """Of a shipped configuration takes nothing that holds for its own source only, where another is given.

    Attributes:
        notes: What was left out, as lines for a person; known once `parse` has been called.
    """

    notes: Sequence[str] = ()

    def _given(self, config: Given, argv: Sequence[str]) -> Given:
        self.notes = []
        words = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        # Without a value it is what the parser itself complains of.
        words.add_argument("--source", nargs="?")
        source = words.parse_known_args(list(argv))[0].source or config.get("source", ("", ""))[0]
        for path in {path for _, path in config.values() if Path(path).parent == shipped_configs()}:
            shipped = read_yaml(path)
            if not source or _is_source_of(str(source), Path(path).stem, str(shipped["source"])):
                continue
            its_own = _OF_A_SOURCE | (_REPLAY if "recordings" in shipped else set())
            left = [key for key, (_, file) in config.items() if file == path and key in its_own]
            config = {key: value for key, value in config.items() if key not in left}
            config.setdefault("name", (source_name(str(source)), path))
            self.notes.append(
                f"{Path(path).stem} is a configuration of {shipped['source']}: its {', '.join(left)} are "
                f"left out for {source}. `syneg init {source}` writes a configuration of its own."
            )
        return config


_OF_A_SOURCE = {
    *("name", "licence", "attribution", "source_datasets", "languages"),
    *("attributes", "query_kind", "document_kind", "persona"),
}
_REPLAY = {"engine", "recordings", "on_miss"}
"""Keys of a shipped configuration that hold for its source only; the latter where it has recordings."""


def source_name(spec: str) -> str:
    """Returns what a source is called, by what names it."""
    if Path(spec).is_dir():
        return Path(spec).resolve().name
    return plain_name(Path(spec.removeprefix("mteb:")))


def _is_source_of(spec: str, name: str, own: str) -> bool:
    return spec == own or source_name(spec).casefold() in (name.casefold(), source_name(own).casefold())


def stage_arguments(*stages: Any, seed: int = 0) -> StageArguments:
    """Returns the arguments of all stages in one."""
    fields: dict[str, Any] = {"seed": seed}
    for stage in stages:
        fields |= dataclasses.asdict(stage)
    return StageArguments(**fields)


def config_file(config: str | Path) -> Path:
    """Returns the path of a data set's YAML file, given as such or as the name of one that is shipped.

    Raises:
        InputError: Where there is neither; names the nearest shipped one.
    """
    path = Path(config)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(shipped_configs().glob("*.yaml"))}
    if str(config) in shipped:
        return shipped[str(config)]
    raise unknown("data set configuration", str(config), shipped)


def with_config_file(argv: Sequence[str] | None) -> list[str]:
    """Returns a command line in which the name of a shipped data set's file is that file's path.

    Raises:
        InputError: Where `--config` names neither a file nor a shipped one.
    """
    words = list(argv or [])
    if "--config" in words[:-1]:
        at = words.index("--config") + 1
        words[at] = str(config_file(words[at]))
    return words


def shipped_configs() -> Path:
    """Returns the folder of the YAML files that are shipped."""
    return Path(resource_path("package:dataset_builders/"))


@dataclass
class Part:
    """One split on its way through its stages.

    Attributes:
        split: Its name.
        pairs: Its pairs.
        stages: What they go through, in order.
        drafts: Begins the drafts, in the order of the pairs.
        facts: What is known of it before the first stage, for the report.
        notes: The same as lines for a person.
    """

    split: str
    pairs: SizedPairs
    stages: Sequence[Stage]
    drafts: Callable[[], Iterator[Draft]]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        """Does all that takes long; resumes.

        Raises:
            InputError: For what a stage cannot use. The journal keeps every completion.
        """
        for stage in self.stages:
            stage.prepare(self.pairs)

    def report(self) -> dict[str, Any]:
        """Returns the stages' reports as plain values, by stage, and their lines for people."""
        reports = {stage.name: report for stage in self.stages if (report := stage.report()) is not None}
        lines = [*self.notes, *(line for report in reports.values() for line in report.lines())]
        facts = {"source": self.facts} if self.facts else {}
        return {**facts, **{name: report.to_dict() for name, report in reports.items()}, "lines": lines}


def source_part(source: Source, split: str, stages: Sequence[Stage]) -> Part:
    """Returns a split of a source.

    Raises:
        InputError: Where the split is missing or holds no positive.
    """
    pairs, skipped = source.pairs(split), source.skipped.get(split, 0)
    facts: dict[str, Any] = {
        "pairs": len(pairs),
        "documents": len(source.corpus),
        "judgements_skipped": skipped,
        "notes": source.notes,
    }
    if source.written:
        facts["origins"] = dict(
            Counter(source.origin_of(pair) for pair in source.query_ids[pairs.query_rows])
        )
    line = f"{split} of {source.name}: {len(pairs):,} pairs, {len(source.corpus):,} documents"
    if TEST in source.qrels and split != TEST and (overlap := shared_judgements(source, TEST, split)).shared:
        facts["overlap"] = [str(overlap)]
    lines = [line, *source.notes, *facts.get("overlap", [])]
    return Part(split, pairs, stages, lambda: pair_drafts(pairs, source.origin_of), facts, lines)


def rows_part(dataset: str, split: str, stages: Callable[[RowPairs], Sequence[Stage]]) -> Part:
    """Returns a split of a finished data set, whose rows go on from where they are.

    Raises:
        InputError: Where there is none, or it does not have the columns of a row.
    """
    rows = load_split(dataset, "default", split)
    check_rows(rows, dataset)
    pairs = RowPairs(rows, load_split(dataset, "dropped", split))
    return Part(split, pairs, stages(pairs), pairs.drafts)


def build_parts(args: StageArguments, journal: Journal) -> list[Part]:
    """Returns the splits of a data set: mine, write, gate, turn round.

    Raises:
        InputError: For a source, a split or arguments that cannot be used.
    """
    source = source_of(args)
    return [source_part(source, split, build_stages(args, journal)) for split in split_commas(args.split)]


def build_stages(args: StageArguments, journal: Journal) -> list[Stage]:
    """Returns the stages of one split of a data set.

    Raises:
        InputError: For arguments that cannot be used.
    """
    mining = Mining(part_of(args, MiningArguments), args.seed)
    generation = part_of(args, GenerationArguments)
    mined = mining.texts if find_strategy(args.strategy).wants_mined else None
    gating = Gating(
        part_of(args, GatingArguments),
        args.seed,
        generation=generation,
        journal=journal.folder / "judge",
        mining=mining,
    )
    return [
        mining,
        Writing(generation, journal, args.seed, mined),
        gating,
        *([Mirroring()] if args.mirror else []),
        Rows(args.pairs_without_negatives),
    ]


def mine_parts(where: SourceArguments, args: MiningArguments, seed: int) -> list[Part]:
    """Returns the splits of a source, to be mined.

    Raises:
        InputError: For a source or a split that cannot be used.
    """
    source = source_of(where)
    return [source_part(source, split, [Mining(args, seed)]) for split in split_commas(where.split)]


def generate_parts(
    dataset: str | None, where: SourceArguments, args: GenerationArguments, journal: Journal, seed: int
) -> list[Part]:
    """Returns the splits of a source, or of a finished data set, to have negatives written.

    Raises:
        InputError: For a source, a data set or a split that cannot be used.
    """

    def stages(mined: Any = None) -> list[Stage]:
        return [Writing(args, journal, seed, mined), *([Mirroring()] if args.mirror else [])]

    splits = split_commas(where.split)
    if dataset is None:
        source = source_of(where)
        return [source_part(source, split, stages()) for split in splits]
    wants = find_strategy(args.strategy).wants_mined
    return [rows_part(dataset, split, lambda rows: stages(rows.mined if wants else None)) for split in splits]


def gate_parts(
    dataset: str,
    split: str,
    args: GatingArguments,
    generation: GenerationArguments,
    journal: Path,
    seed: int,
) -> list[Part]:
    """Returns the splits of a finished data set, to be gated.

    Raises:
        InputError: For a data set or a split that cannot be used.
    """
    return [
        rows_part(
            dataset,
            one,
            lambda rows: [Gating(args, seed, generation=generation, journal=journal / "judge")],
        )
        for one in split_commas(split)
    ]


def build_folder(args: StageArguments, output: FolderArguments) -> dict[str, Any]:
    """Mines, writes, gates, and writes a data set folder.

    Args:
        args: What determines the data set; `journal` must be set.
        output: Where it is written.

    Returns:
        For each split the stages' reports, and their lines for people.

    Raises:
        InputError: Where a stage says so, or the folder is there already. No completion is lost.
    """
    assert args.journal is not None
    check_names(output.output, split_commas(args.split), args.name)
    check_output(output.output, output.overwrite)
    card = new_card(output, args.source, args)
    with Journal(args.journal) as journal:
        parts = build_parts(args, journal)
        return write_folder(parts, output, card, args.triplet_negatives, part_of(args, GatingArguments))


def ask_shard(args: StageArguments) -> list[str]:
    """Asks the LLM for one shard's completions, which the build without ``--shard`` finds in the journal.

    Nothing is mined, unless the strategy starts from mined negatives, and no folder is written.

    Args:
        args: As for `build_folder`, with `shard` set.

    Returns:
        Lines on what was asked for.

    Raises:
        InputError: For a model, library or file that is not to be had. No completion is lost.
    """
    assert args.journal is not None
    lines = []
    with Journal(args.journal) as journal:
        for part in build_parts(args, journal):
            # Up to the writing: all that follows it needs every shard's completions.
            before = 0 if find_strategy(args.strategy).wants_mined else 1
            part = dataclasses.replace(part, stages=part.stages[before:2])
            check_parts([part])
            part.prepare()
            lines += part.report()["lines"]
    return lines


def write_folder(
    parts: Sequence[Part],
    output: FolderArguments,
    card: DatasetCardInfo,
    triplet_negatives: int | None = None,
    audit: GatingArguments | None = None,
) -> dict[str, Any]:
    """Prepares the parts and writes their rows as one Hub-ready folder, in one pass.

    Args:
        parts: The splits.
        output: Where.
        card: What the card says; the stages add what they did.
        triplet_negatives: Negatives of a row of `triplet`; None writes none.
        audit: Audits what was written where these arguments ask for it.

    Returns:
        For each split the stages' reports, and their lines for people.

    Raises:
        InputError: Where a stage says so, or the folder cannot be written. No completion is lost.
    """
    check_names(output.output, [part.split for part in parts])
    check_output(output.output, output.overwrite, max(FREE_BYTES, least_bytes(parts)))
    check_parts(parts)
    for part in parts:
        part.prepare()
    reports = {}
    with FolderWriter(output.output, overwrite=output.overwrite) as folder:
        for part in parts:
            drafts = tqdm(part.drafts(), desc="Writing rows", total=len(part.pairs), unit="row")
            with folder.open_rows(part.split, triplet_negatives) as rows:
                run(part.stages, drafts, rows)
            reports[part.split] = part.report()
        if audit is not None and audit.audit:
            _audit(folder, audit, output.seed, reports, card)
        folder.write_card(complete_card(card, parts, reports))
    return reports


def check_parts(parts: Sequence[Part]) -> None:
    """Checks, before anything is encoded or asked for, what the stages need.

    Raises:
        InputError: For a model, library, device or file that is not to be had.
    """
    # All splits go through stages with the same arguments.
    for stage in parts[0].stages if parts else ():
        stage.check()


def least_bytes(parts: Sequence[Part]) -> int:
    """Returns how many bytes the rows of parts surely take: a fifth of their texts, being packed."""
    total = 0.0
    for part in parts:
        few = list(islice(part.pairs, 200))
        if not few:
            continue
        length = sum(len(pair.positive.encode("utf-8", "replace")) for pair in few) / len(few)
        total += length * len(part.pairs) * (1 + negatives_of_a_pair(part.stages))
    return round(total / 5)


def negatives_of_a_pair(stages: Sequence[Stage]) -> int:
    """Returns how many negatives stages give a pair, at most."""
    return sum(
        stage.args.mined_per_miner * len(stage.args.miners)
        if isinstance(stage, Mining)
        else stage.args.slots
        if isinstance(stage, Writing)
        else 0
        for stage in stages
    )


def _audit(
    folder: FolderWriter, args: GatingArguments, seed: int, reports: dict[str, Any], card: DatasetCardInfo
) -> None:
    from datasets import Dataset

    from syneg.gating.audit import audit, encoder_for_audit

    for split, written in folder.info.configs.get("default", {}).items():
        rows: Any = Dataset.from_parquet([str(folder.path / name) for name in written.files])
        found = audit(rows, encoder_for_audit(args.audit_encoder), seed)
        reports[split]["lines"] += found.lines()
        card.audit[split] = found.to_dict()


def new_card(
    output: FolderArguments, source: str, args: BuildArguments | None = None, dataset: str | None = None
) -> DatasetCardInfo:
    """Returns what a card says before the stages add what they did.

    Args:
        output: The folder, by which the data set is called where `args` does not say.
        source: What the pairs come from.
        args: Name, licence and so on.
        dataset: A finished data set that the rows come from; what its card says holds for these too.
    """
    card = DatasetCardInfo(name=Path(output.output).absolute().name)
    before = read_manifest(Path(dataset)) if dataset is not None else None
    if before is not None:
        names = {one.name for one in dataclasses.fields(card)} - {"name", "version", "limits"}
        card = dataclasses.replace(card, **{name: before[name] for name in names & before.keys()})
    elif dataset is not None:
        card.source = dataset
    else:
        card.source = public_name(source)
    if args is not None:
        card = dataclasses.replace(
            card,
            command=command_of(args),
            name=args.name,
            version=str(args.version),
            source_datasets=args.source_datasets,
            licence=args.licence,
            attribution=args.attribution,
            languages=args.languages,
        )
    return dataclasses.replace(card, repo_id=output.repo_id, seeds={"seed": output.seed})


def command_of(args: BuildArguments) -> str:
    """Returns the command line that makes a data set again: all that is not as by default.

    Where files lie, how fast things go, and what only looks is left out.
    """
    options = options_of(args, public_name)
    words = [f"--{name} {shlex.quote(value)}" for name, value in options.items() if name not in _UNTOLD]
    return " ".join(["syneg build", *words, "--output FOLDER"])


def options_of(args: Any, told: Callable[[str], str] = str) -> dict[str, str]:
    """Returns the options of a dataclass of arguments that are not as by default, as a command line has them.

    Args:
        args: The arguments, of a kind of which every one has a default.
        told: What becomes of texts: of a path as it is to be told in public, say.
    """
    default = type(args)()
    options = {}
    for one in dataclasses.fields(args):
        value = getattr(args, one.name)
        if value == getattr(default, one.name):
            continue
        if isinstance(value, str):
            value = told(value)
        elif isinstance(value, dict):
            value = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, list | tuple):
            value = ",".join(told(str(item)) for item in value)
        options[one.name] = str(value)
    return options


def complete_card(card: DatasetCardInfo, parts: Sequence[Part], reports: dict[str, Any]) -> DatasetCardInfo:
    """Returns a card with what the stages did, by stage and split."""
    told: dict[str, Any] = {}
    names = {one.name for one in dataclasses.fields(card)}
    for part in parts:
        for stage in part.stages:
            said = stage.card()
            margins = {**told.get("margins", {}), **said.pop("margins", {})}
            told |= {name: value for name, value in said.items() if value is not None}
            told |= {"margins": margins} if margins else {}
            if stage.name in names:
                # Without the figures of the last run, which differ between equal builds.
                report = {k: v for k, v in reports[part.split][stage.name].items() if k != "run"}
                told.setdefault(stage.name, {})[part.split] = report
    origins = {part.split: part.facts["origins"] for part in parts if "origins" in part.facts}
    notes = dict.fromkeys(note for part in parts for note in part.facts.get("notes", ()))
    limits = [
        line
        for part in parts
        for stage in part.stages
        if isinstance(stage, Rows) and (line := stage.limit(part.split))
    ]
    limits += [line for part in parts for line in part.facts.get("overlap", [])]
    told |= {"origins": origins} if origins else {}
    told |= {"left_out": [*card.left_out, *notes], "limits": [*card.limits, *limits]}
    return dataclasses.replace(card, **told)


def estimates(args: StageArguments, journal: str | Path, source: Source) -> dict[str, Estimate]:
    """Returns what the writing for each split of a source would cost; nothing is mined or asked for.

    Raises:
        InputError: For a split, or recordings, that cannot be used.
    """
    generation, found = part_of(args, GenerationArguments), {}
    for split in split_commas(args.split):
        writing = negatives_of(source.pairs(split), generation, journal, args.seed, progress=False)
        found[split] = estimate(writing)
        writing.close()
    return found


def estimate_parts(args: StageArguments, journal: str | Path) -> list[str]:
    """Returns what each split would cost, stage by stage, as lines; nothing is mined or asked for."""
    source = source_of(args)
    lines = [*source.notes]
    stages = build_stages(args, Journal(journal))
    mining = part_of(args, MiningArguments)
    reckoning = Reckoning(mining.encoder, mining.mining_device)
    query_tokens, document_tokens = lengths(source)
    gating = part_of(args, GatingArguments)
    generation = part_of(args, GenerationArguments)
    mines = args.mined_per_miner * len(args.miners)
    judged = {"all": mines + args.slots, "mined": mines, "synthetic": args.slots, "marked": args.slots}
    for split, found in estimates(args, journal, source).items():
        pairs = source.pairs(split)
        lines += [f"{split} of {source.name}:", *found.lines(), *prompt_lines(found.example)]
        dense = isinstance(stages[0], Mining) and stages[0].has_encoder
        counts = (len(source.queries), len(source.corpus)) if dense else (0, 0)
        steps = [reckoning.mining(counts[0], query_tokens, counts[1], document_tokens)]
        steps.append(by_llm("generate", f"{len(pairs):,} pairs", found, found.open_requests))
        if "teacher" in gating.wanted and (args.teacher or dense):
            scored = len(pairs) * (args.slots + (mines if args.teacher else 0))
            steps.append(teacher_step(gating, scored, document_tokens, None if args.teacher else reckoning))
        if "judge" in gating.wanted:
            each = judged[args.judge_of]
            work = f"at most {each} documents a pair"
            folder = Path(journal) / "judge"
            step = judge_step(pairs, gating, generation, folder, each * len(pairs), work)
            steps += [step] if step is not None else []
        steps.append(reckoning.training(len(pairs), query_tokens, document_tokens))
        lines += table(steps, args.gpu_price)
    return [*lines, *problems(stages)]


@dataclass
class RowsReport:
    """What came out of all stages.

    Attributes:
        rows: Rows.
        mirrored: Rows that were turned round, part of `rows`.
        without_negatives: Pairs that ended without negatives.
        unparsed: Completions that could not be read.
        fate: What became of pairs without negatives: "error", "keep" or "drop".
    """

    rows: int = 0
    mirrored: int = 0
    without_negatives: int = 0
    unparsed: int = 0
    fate: str = "error"

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts."""
        counts = dataclasses.asdict(self)
        del counts["fate"]
        return counts

    def lines(self) -> list[str]:
        """Returns the counts for people."""
        lines = [f"rows: {self.rows:,} ({self.mirrored:,} mirrored)"]
        if self.without_negatives:
            fate = "kept as they are" if self.fate == "keep" else "left out"
            lines.append(f"  {self.without_negatives:,} pairs were left without negatives: {fate}")
        return lines


class Rows(Stage):
    """The last stage: counts rows, and says what becomes of those without negatives.

    Args:
        without_negatives: "error", "keep" or "drop".
    """

    name = "rows"

    def __init__(self, without_negatives: str) -> None:
        self._report = RowsReport(fate=without_negatives)

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """Leaves out what has no negatives, if it may.

        Raises:
            InputError: For a row without negatives, unless the arguments say to keep or drop it.
        """
        for draft in drafts:
            self._report.unparsed += sum(negative["gate"] == "parse" for negative in draft.dropped)
            draft.is_left_out = not self._stays(draft.row, draft)
            draft.made = [row for row in draft.made if self._stays(row)]
        return drafts

    def report(self) -> RowsReport:
        """Returns the counts."""
        return self._report

    def limit(self, split: str) -> str | None:
        """Returns what the card says of pairs without negatives; None where there were none."""
        count = self._report.without_negatives
        fate = "kept without any" if self._report.fate == "keep" else "left out"
        return f"{count} pairs of {split} ended without negatives and are {fate}." if count else None

    def _stays(self, row: Row, draft: Draft | None = None) -> bool:
        report = self._report
        if not row["negatives"]:
            report.without_negatives += 1
            if report.fate == "error":
                lost = draft.dropped[0] if draft is not None and draft.dropped else None
                why = f"; dropped: {lost['gate']}: {lost['reason']}" if lost else ""
                raise InputError(
                    f"pair (query {row['query_id']!r}, positive {row['positive_id']!r}) has no negative left"
                    f"{why}. Loosen the rules, add a miner, or pass --pairs_without_negatives drop (or "
                    "keep); no completion is lost."
                )
        stays = bool(row["negatives"]) or report.fate == "keep"
        report.rows += stays
        report.mirrored += stays and row["origin"] == MIRROR
        return stays
