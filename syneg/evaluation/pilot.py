"""`syneg pilot`: whether what an LLM writes pays on a source, be it negatives or queries, told by a sample.

It is made of what there is: a sample of the source is parted by document (`sources.cutting`), `build` makes
rows of one half, `written` has queries written and makes rows of them, `compare` trains the arms on both and
evaluates on the other half, `verdict` says what came of it, and `estimate` what the whole source would cost.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syneg.building import (
    FolderArguments,
    StageArguments,
    build_folder,
    estimates,
    options_of,
    part_of,
)
from syneg.config import parse_mapping, split_commas
from syneg.errors import InputError
from syneg.evaluation.arguments import (
    ZERO_SHOT,
    CompareArguments,
    EncodingArguments,
    EvaluationSourceArguments,
)
from syneg.evaluation.comparison import Comparison
from syneg.evaluation.summary import summarise, summary_table, work_notes
from syneg.evaluation.verdict import PAYS, Verdict, best_arm, judge
from syneg.evaluation.written import WRITTEN, WRITTEN_AND_PAIRS, Queries, QueriesPlan, plan_queries
from syneg.llm.estimate import Estimate
from syneg.llm.report import RunFigures
from syneg.mining.arguments import MiningArguments
from syneg.rows import FEATURES, SYNTHETIC, make_row
from syneg.sources import Source, SourceArguments, source_of
from syneg.sources.cutting import cut_test, sample_pairs
from syneg.sources.source import TEST, TRAIN

IN_BATCH, DENSE, HYBRID, AS_WRITTEN = "in-batch", "dense", "hybrid", "hybrid-as-written"
RECORD = "pilot.json"

_RATE = "completion_tokens_per_second"
_OF_THE_RUN = {"dry_run", "dry_run_prompts", "tokens_per_second", "shard", "journal", "split", "seed"}
"""Options of the stages that the lines for the whole source leave out, or say in a place of their own."""
_NOT_RECORDED = (
    "Whether written queries pay is not tried: with --engine recorded that takes recordings of queries, too "
    "(--query_recordings FILE: doc_id and query a line, or a journal folder)."
)

_LOOSEN = (
    f"{AS_WRITTEN} is better than {DENSE} on this sample and yet no advice, since nothing is that passed no "
    "gate: look at what the gates dropped (rows/, configuration dropped), loosen them, and run it again."
)


@dataclass
class PilotArguments:
    """How large a pilot is, and what it trains.

    Raises:
        InputError: For a number out of its range, or a key of `training` that each arm has its own of.
    """

    output: str = field(metadata={"help": "The folder to write; what is finished there is not done again."})
    seed: int = field(default=0, metadata={"help": "Seed of the sample, of the build, and of both halves."})
    model: str | None = field(
        default=None, metadata={"help": "The retriever that is trained; the dense miner's where null."}
    )
    pairs: int = field(
        default=300,
        metadata={"help": "Pairs of --split that are taken: half to train on, half to evaluate on."},
    )
    documents: int | None = field(
        default=None,
        metadata={
            "help": "Mine from and evaluate on so many documents only, the judged ones and others at random; "
            "the whole corpus where null."
        },
    )
    written_documents: int | None = field(
        default=None,
        metadata={
            "help": "Documents that queries are written for, as syneg ask writes them: drawn by --seed, none "
            "of the evaluation half; as many as the training half has pairs if null; 0 leaves out the arms "
            "that train on written queries."
        },
    )
    query_recordings: str | None = field(
        default=None,
        metadata={
            "help": "For the engine 'recorded': the written queries to replay, as syneg ask's --recordings: "
            "a JSONL of doc_id and query, or a journal folder. --recordings are those of the negatives."
        },
    )
    mixture: str | None = field(
        default=None,
        metadata={
            "help": "The mixture of the hybrid arms, as syneg train's; synthetic=1,dense=2 if null (without "
            "the miner dense: the first miner's)."
        },
    )
    dense_mixture: str | None = field(
        default=None,
        metadata={
            "help": "The mixture of the arm dense, which the others are held to; dense=3 if null (likewise)."
        },
    )
    training: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Keys of `syneg train` for all arms, over the pilot's own: up to 8 epochs, of which "
            "save_best=0.2 chooses the best and patience=2 ends them; batches of 16, a rate of 5e-5, a "
            "temperature of 0.05, bf16 where the device has it."
        },
    )
    seeds: list[str] = field(
        default_factory=lambda: ["0", "1", "2"], metadata={"help": "Every arm is trained with each."}
    )
    metric: str = field(
        default="ndcg_at_10",
        metadata={"help": "What is tested.", "choices": ["ndcg_at_10", "recall_at_10", "mrr_at_10"]},
    )

    def __post_init__(self) -> None:
        self.training = parse_mapping(self.training, "training")
        for name, least in (("pairs", 4), ("documents", 2), ("written_documents", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name} is {value}; it must be {least} or more.")
        for key in ("model", "dataset", "mixture"):
            if key in self.training:
                raise InputError(f"--training: {key!r} is set for each arm; leave it out.")
        if self.training.get("save_best", 1) in (0, None):
            raise InputError(
                "--training: with save_best 0 every arm would be trained for one number of epochs; give the "
                "share that is held back to choose it by."
            )


@dataclass(frozen=True)
class Arm:
    """An arm that is trained.

    Attributes:
        stages: What makes its rows.
        folder: What the folder of these rows is called; arms of equal stages share one.
        changes: Keys of `syneg train` in which it differs from the others.
        writes: Whether it trains on negatives that an LLM wrote.
        ask: Options of `syneg ask` for the whole source, where it trains on written queries.
    """

    stages: StageArguments
    folder: str
    changes: dict[str, Any]
    writes: bool = False
    ask: dict[str, str] | None = None


@dataclass(frozen=True)
class Pilot:
    """What a pilot found.

    Attributes:
        verdict: Of the hybrid arm as configured, against dense.
        best_arm: The arm to use.
        pairs: Pairs in both halves.
        comparison: All arms.
        cost: What the writing for the whole split costs that is not in the journal yet.
        commands: The lines that do the whole split as the best arm did the sample.
        notes: What a reader must know, as lines.
        queries: Of written queries; None where none were written.
    """

    verdict: Verdict
    best_arm: str
    pairs: int
    comparison: Comparison
    cost: Estimate
    commands: list[str]
    notes: list[str]
    queries: Queries | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns all for JSON; `interval` and `p` are of the difference from dense, p as corrected."""
        settings, verdict = self.comparison.settings, self.verdict
        arms = {}
        for line in summarise(self.comparison):
            difference = line.difference
            runs = self.comparison.arms.get(line.arm, [])
            arms[line.arm] = {
                "mean": line.means[settings["metric"]],
                "difference": None if difference is None else difference.mean,
                "interval": None if difference is None else [difference.low, difference.high],
                "p": line.corrected_p,
                "by_seed": {str(seed): value for seed, value in line.by_seed.items() if seed is not None},
                "epochs": [epoch for run in runs if (epoch := best_epoch(run.history)) is not None],
            }
        return {
            **verdict.to_dict(self.pairs),
            "evaluated_on_written": settings.get("written"),
            "written": None if self.queries is None else self.queries.to_dict(self.pairs),
            "best_arm": self.best_arm,
            "arms": arms,
            "pairs": self.pairs,
            "queries": verdict.queries,
            "seeds": settings["seeds"],
            "cost": {key: value for key, value in self.cost.to_dict().items() if key != "example"},
            "commands": self.commands,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """Returns all for people."""
        epochs = []
        for arm, runs in self.comparison.arms.items():
            chosen = [f"{epoch:g}" for run in runs if (epoch := best_epoch(run.history)) is not None]
            epochs.append(f"{arm} {'/'.join(chosen)}")
        if self.best_arm == ZERO_SHOT:
            use = ["Best arm: zero-shot. Leave the model as it is: trained on dense it is worse."]
        else:
            use = [f"Best arm: {self.best_arm}. The whole source with it:", *self.commands]
        queries, cost = self.queries, [f"  {line}" for line in self.cost.lines()]
        if queries is not None:
            cost = ["  negatives:", *(f"  {line}" for line in cost), "  queries:"]
            cost += [f"    {line}" for line in queries.cost.lines()]
        return [
            summary_table(self.comparison).rstrip(),
            *self.notes,
            f"Epochs chosen on what was held back, by seed: {', '.join(epochs)}",
            "",
            f"VERDICT: {self.verdict.sentence(self.pairs)}",
            *([] if queries is None else ["", *queries.lines(self.pairs)]),
            "",
            "Writing for the whole source, beyond what the pilot's journal holds:",
            *cost,
            "",
            *use,
        ]


def pilot(args: PilotArguments, stages: StageArguments, encoding: EncodingArguments) -> Pilot:
    """Runs what is not finished of a pilot, and writes pilot.json into its folder.

    Args:
        args: How large it is, and what is trained.
        stages: The data set as it is to be built of the whole split; `journal` must be set.
        encoding: How is evaluated.

    Raises:
        InputError: For anything that cannot be used, where possible before anything is asked of an LLM. No
            completion is lost.
    """
    from syneg.evaluation.compare import compare, write_configurations

    assert stages.journal is not None
    output, journal, source = Path(args.output), stages.journal, _source_of(stages)
    stages = dataclasses.replace(
        stages,
        pairs_without_negatives="keep",
        encode_max_length=stages.encode_max_length or encoding.max_length,
    )
    sample = sample_of(source, args, stages.split)
    plan = plan_of(args, stages, source, sample, output)
    arms, training = arms_of(args, stages, plan), training_of(args, encoding)
    comparing = _comparing(args, arms, training)
    write_configurations(comparing, {}, read=False)
    _check(comparing, sample)
    if plan is not None:
        plan.check()
    sample.save(output / "source")
    rate = stages.tokens_per_second
    # All from one journal: what is written for one is there for the others.
    for name, made in {arm.folder: arm.stages for arm in arms.values() if arm.ask is None}.items():
        small = dataclasses.replace(made, **_of_the_sample(output))
        report = build_folder(small, FolderArguments(str(output / name), args.seed, overwrite=True))[TRAIN]
        rate = rate or _measured(RunFigures(**report["generation"]["run"]), output / "rate.json")
        print("\n".join([f"{output / name}:", *report["lines"], ""]), flush=True)
    written, notes = None, [] if args.written_documents == 0 else [_NOT_RECORDED]
    if plan is not None:
        written, notes = plan.write(output, float(training["save_best"]))
    if written is None:
        arms = {name: arm for name, arm in arms.items() if arm.ask is None}
    arms, further_notes = _trainable(arms, output, training)
    notes += further_notes
    comparing = _comparing(args, arms, training)
    encoding = dataclasses.replace(encoding, eval_bf16=encoding.eval_bf16 or bool(training["bf16"]))
    where = EvaluationSourceArguments(str(output / "source"), split=TEST)
    comparison = compare(comparing, where, encoding)
    whole = dataclasses.replace(stages, tokens_per_second=rate)
    (cost,) = estimates(whole, journal, source).values()
    queries = None
    if written is not None and plan is not None:
        asked_rate = stages.tokens_per_second or _measured(written.run, output / "rate-queries.json")
        with_pairs, alone = judge(comparison, WRITTEN_AND_PAIRS), judge(comparison, WRITTEN, ZERO_SHOT)
        queries = Queries(with_pairs, alone, written, plan.whole_estimate(asked_rate))
    # What passed no gate is trained on to see what the gates are worth, and is no advice.
    best, verdict = best_arm(comparison, never=[AS_WRITTEN]), judge(comparison, HYBRID)
    if judge(comparison, AS_WRITTEN).word == PAYS != verdict.word:
        notes.append(_LOOSEN)
    found = Pilot(
        verdict,
        best,
        len(sample.pairs(TRAIN)) + len(sample.pairs(TEST)),
        comparison,
        cost,
        commands_of(args, arms[best], training) if best in arms else [],
        [*sample.notes, *notes, *work_notes(comparison)],
        queries,
    )
    part = output / f"{RECORD}.part"
    part.write_text(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(output / RECORD)
    return found


def budget(args: PilotArguments, stages: StageArguments) -> list[str]:
    """Returns what the pilot itself would write, as lines; nothing is mined, asked for or written.

    Raises:
        InputError: For a source, or recordings, that cannot be used.
    """
    assert stages.journal is not None
    source = _source_of(stages)
    sample = sample_of(source, args, stages.split)
    (cost,) = estimates(dataclasses.replace(stages, split=TRAIN), stages.journal, sample).values()
    lines = [*sample.notes, "negatives:", *(f"  {line}" for line in cost.lines())]
    # The file of examples is of no use beyond the prompts that are rendered.
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(args, stages, source, sample, Path(folder))
        if plan is not None:
            return [*lines, "queries:", *(f"  {line}" for line in plan.estimate().lines())]
    return lines if args.written_documents == 0 else [*lines, _NOT_RECORDED]


def sample_of(source: Source, args: PilotArguments, split: str) -> Source:
    """Returns the pilot's source: half of the sample in split "train", half in "test", by document.

    Raises:
        InputError: Where the split is missing, or cannot be parted.
    """
    sample = sample_pairs(source, split, args.pairs, args.seed, args.documents)
    try:
        return cut_test(sample, 0.5, args.seed)
    except InputError:
        raise InputError(
            f"{source.name}: {len(sample.qrels[TRAIN])} queries of split {split!r} cannot be parted by "
            "document into a half to train on and a half to evaluate on; take more --pairs."
        ) from None


def plan_of(
    args: PilotArguments, stages: StageArguments, source: Source, sample: Source, folder: Path
) -> QueriesPlan | None:
    """Returns how queries are written; None where none are, or where there are no recordings of any.

    Args:
        args: For how many documents, and what is replayed.
        stages: The data set as configured.
        source: The whole source.
        sample: The pilot's sample of it.
        folder: Where the file of the examples shown is written.

    Raises:
        InputError: For an argument that cannot be used.
    """
    if args.written_documents == 0:
        return None
    return plan_queries(
        stages,
        source,
        sample,
        documents=args.written_documents,
        recordings=args.query_recordings,
        model=_model(args, stages),
        folder=folder,
    )


def arms_of(args: PilotArguments, stages: StageArguments, plan: QueriesPlan | None = None) -> dict[str, Arm]:
    """Returns the arms that are trained, by name; the model before training is evaluated beside them.

    Args:
        args: The mixtures.
        stages: The data set as configured.
        plan: How queries are written; None leaves out the arms that train on them.
    """
    mined = "dense" if "dense" in stages.miners else stages.miners[0]
    dense = {"mixture": args.dense_mixture or f"{mined}=3"}
    hybrid = {"mixture": args.mixture or f"synthetic=1,{mined}=2"}
    as_written = dataclasses.replace(stages, gates=[])
    arms = {
        IN_BATCH: Arm(stages, "rows", {"mixture": "none"}),
        DENSE: Arm(stages, "rows", dense),
        HYBRID: Arm(stages, "rows", hybrid, writes=True),
        # What the guard is there to stop is what this arm measures.
        AS_WRITTEN: Arm(as_written, "rows-as-written", {**hybrid, "guard": "off"}, writes=True),
    }
    if plan is not None:
        for name in (WRITTEN, WRITTEN_AND_PAIRS):
            ask = plan.options(with_pairs=name == WRITTEN_AND_PAIRS)
            arms[name] = Arm(stages, f"rows-{name}", dense, ask=ask)
    return arms


def training_of(args: PilotArguments, encoding: EncodingArguments) -> dict[str, Any]:
    """Returns the keys of `syneg train` that all arms share: the pilot's own, and those given over them."""
    import torch

    from syneg.mining.embeddings import choose_device, choose_dtype

    assert isinstance(args.training, dict)
    length = {} if encoding.max_length is None else {"max_length": encoding.max_length}
    return {
        **length,
        "num_train_epochs": 8,
        "save_best": 0.2,
        "patience": 2,
        "held_out_documents": 1000,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-5,
        "temperature": 0.05,
        "in_batch_negatives": True,
        "bf16": choose_dtype("auto", choose_device(None)) is torch.bfloat16,
        # A pair that the gates left without negatives learns from the batch, so that all arms see all pairs.
        "empty_rows": "in_batch",
        # The best epoch's weights are wanted, and no training goes on from there.
        "save_only_model": True,
        **args.training,
    }


def commands_of(args: PilotArguments, arm: Arm, training: Mapping[str, Any]) -> list[str]:
    """Returns the lines that build the whole split's rows for an arm, and train it on them.

    What needs no LLM is mined alone; what trains on written queries has them written first.
    """
    stages, folder, lines = arm.stages, f"{args.output}-dataset", []
    train = {"model": _model(args, stages), "dataset": folder, "split": stages.split, **training}
    if arm.ask is not None:
        asked = f"{args.output}-asked"
        ask = {name: word for name, word in arm.ask.items() if name not in _OF_THE_RUN}
        ask |= {"journal": arm.ask["journal"], "split": stages.split, "seed": str(args.seed), "output": asked}
        lines.append(_line("syneg ask", ask))
        options = {"source": asked, **options_of(part_of(stages, MiningArguments))}
        train["split"] = TRAIN
    elif arm.writes:
        options = {name: word for name, word in options_of(stages).items() if name not in _OF_THE_RUN}
        options["journal"] = str(stages.journal)
    else:
        options = options_of(part_of(stages, SourceArguments)) | options_of(part_of(stages, MiningArguments))
    options |= {"split": train["split"], "seed": str(args.seed), "output": folder}
    train |= {**arm.changes, "seed": args.seed, "output": f"{args.output}-model"}
    return [
        *lines,
        _line(f"syneg {'build' if arm.writes else 'mine'}", options),
        _line("accelerate launch -m syneg train", train),
    ]


def best_epoch(history: list[dict[str, float]]) -> float | None:
    """Returns the epoch that was best on what was held back, the first of equals; None where none was."""
    measured = [
        (line[key], line["epoch"])
        for line in history
        for key in line
        if key.startswith("eval_held_back") and key.endswith("ndcg@10")
    ]
    return max(measured, key=lambda one: one[0])[1] if measured else None


def _source_of(stages: StageArguments) -> Source:
    if len(split_commas(stages.split)) != 1:
        raise InputError(f"--split {stages.split}: a pilot takes its pairs from one split.")
    if stages.shard:
        raise InputError("--shard asks for a part of the pairs only; a pilot is small. Leave it out.")
    if stages.query_embeddings is not None:
        raise InputError(
            "--query_embeddings has a row for each query of the source, and a pilot takes a sample of them; "
            "give --encoder instead."
        )
    return source_of(stages)


def _comparing(
    args: PilotArguments, arms: Mapping[str, Arm], training: Mapping[str, Any]
) -> CompareArguments:
    output = Path(args.output)
    return CompareArguments(
        model=_model(args, arms[DENSE].stages),
        dataset=str(output / arms[DENSE].folder),
        output=str(output / "compare"),
        arms={name: {**arm.changes, "dataset": str(output / arm.folder)} for name, arm in arms.items()},
        training=dict(training),
        baseline=DENSE,
        seeds=args.seeds,
        metric=args.metric,
    )


def _trainable(
    arms: Mapping[str, Arm], output: Path, training: Mapping[str, Any]
) -> tuple[dict[str, Arm], list[str]]:
    """Returns the arms as their rows let them be trained, and what a reader must know of that.

    Where the gates left nothing that was written, an arm trains as dense does, as a mixture does row by row.

    Raises:
        InputError: Where no row has a mined negative that an arm's mixture names.
    """
    from syneg.training.held_out import hold_back_rows
    from syneg.training.mixing import Mixture
    from syneg.training.run import TrainArguments, load_rows

    found: dict[str, set[str]] = {}
    changed, notes = dict(arms), []
    for name, arm in arms.items():
        if arm.folder not in found:
            rows = load_rows(TrainArguments(model="", dataset=str(output / arm.folder)))
            kept, _ = hold_back_rows(rows, float(training["save_best"]))
            found[arm.folder] = {one["source"] for negatives in kept["negatives"] for one in negatives}
        if arm.writes and SYNTHETIC not in found[arm.folder]:
            arm = dataclasses.replace(arm, changes=arms[DENSE].changes, writes=False)
            changed[name] = arm
            notes.append(f"No synthetic negative is left for {name} to train on, so it is {DENSE} once more.")
        for source in Mixture.parse(arm.changes["mixture"]).sources:
            if source not in found[arm.folder]:
                raise InputError(
                    f"arm {name!r}, mixture {arm.changes['mixture']!r}: no pair that is trained on has a "
                    f"negative of source {source!r}. Loosen the miners' rules (--relative_margin), or take "
                    "another mixture; no completion is lost."
                )
    return changed, notes


def _model(args: PilotArguments, stages: StageArguments) -> str:
    return args.model or stages.encoder


def _of_the_sample(output: Path) -> dict[str, Any]:
    """Returns what makes stages those of the sample."""
    return {
        "source": str(output / "source"),
        "split": TRAIN,
        "test_share": 0.0,
        "query_column": None,
        "positive_column": None,
    }


def _check(comparing: CompareArguments, sample: Source) -> None:
    """Finds out what the trainings would stumble over, before anything is asked of an LLM.

    Raises:
        InputError: For a model that cannot be loaded, or too small a sample to hold anything back.
    """
    from datasets import Dataset

    from syneg.encoders import load_encoder
    from syneg.training.held_out import hold_back_rows

    assert isinstance(comparing.training, dict)
    load_encoder(comparing.model)
    rows = [make_row(p.query_id, p.query, p.positive_id, p.positive, []) for p in sample.pairs(TRAIN)]
    try:
        hold_back_rows(Dataset.from_list(rows, features=FEATURES), float(comparing.training["save_best"]))
    except InputError as error:
        raise InputError(f"--pairs, half of which are trained on: {error}") from None


def _measured(run: RunFigures, path: Path) -> float | None:
    """Returns the completion tokens a second of the writing, and keeps them for when it is done."""
    if run.seconds and run.completion_tokens:
        path.write_text(json.dumps({_RATE: run.completion_tokens / run.seconds}), encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8"))[_RATE]) if path.is_file() else None


def _line(command: str, options: Mapping[str, Any]) -> str:
    words = [command]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(shlex.quote(_word(one)) for one in values)]
    return " ".join(words)


def _word(value: Any) -> str:
    if isinstance(value, dict | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
