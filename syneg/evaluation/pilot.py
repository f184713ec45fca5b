"""`syneg pilot`: whether written negatives pay on a source, found out on a sample of it.

It is made of what there is: a sample of the source is parted by document (`sources.cutting`), `build` makes
rows of one half, `compare` trains the arms on them and evaluates on the other half, `verdict` says what came
of it, and `estimate` what the whole source would cost.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
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
from syneg.evaluation.verdict import Verdict, best_arm, judge
from syneg.llm.estimate import Estimate
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
        for name, least in (("pairs", 4), ("documents", 2)):
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
        writes: Whether it trains on what an LLM wrote.
    """

    stages: StageArguments
    folder: str
    changes: dict[str, Any]
    writes: bool = False


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
    """

    verdict: Verdict
    best_arm: str
    pairs: int
    comparison: Comparison
    cost: Estimate
    commands: list[str]
    notes: list[str]

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
            "verdict": verdict.word,
            "sentence": verdict.sentence(self.pairs),
            "arm": verdict.arm,
            "baseline": verdict.baseline,
            "metric": verdict.metric,
            "written": settings.get("written"),
            "difference": verdict.difference.mean,
            "interval": [verdict.difference.low, verdict.difference.high],
            "p": verdict.p_value,
            "best_arm": self.best_arm,
            "arms": arms,
            "pairs": self.pairs,
            "queries": verdict.queries,
            "pairs_to_tell": verdict.pairs_to_tell(self.pairs),
            "smallest_difference_told": verdict.smallest,
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
        return [
            summary_table(self.comparison).rstrip(),
            *self.notes,
            f"Epochs chosen on what was held back, by seed: {', '.join(epochs)}",
            "",
            f"VERDICT: {self.verdict.sentence(self.pairs)}",
            "",
            "Writing for the whole source, beyond what the pilot's journal holds:",
            *(f"  {line}" for line in self.cost.lines()),
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
    arms, training = arms_of(args, stages), training_of(args, encoding)
    comparing = _comparing(args, arms, training)
    write_configurations(comparing, {}, read=False)
    _check(comparing, sample)
    sample.save(output / "source")
    rate = stages.tokens_per_second
    # All from one journal: what is written for one is there for the others.
    for name, made in {arm.folder: arm.stages for arm in arms.values()}.items():
        small = dataclasses.replace(made, **_of_the_sample(output))
        report = build_folder(small, FolderArguments(str(output / name), args.seed, overwrite=True))[TRAIN]
        rate = rate or _measured(report, output)
        print("\n".join([f"{output / name}:", *report["lines"], ""]), flush=True)
    arms, notes = _trainable(arms, output, training)
    comparing = _comparing(args, arms, training)
    encoding = dataclasses.replace(encoding, eval_bf16=encoding.eval_bf16 or bool(training["bf16"]))
    where = EvaluationSourceArguments(str(output / "source"), split=TEST)
    comparison = compare(comparing, where, encoding)
    whole = dataclasses.replace(stages, tokens_per_second=rate)
    (cost,) = estimates(whole, journal, source).values()
    best = best_arm(comparison)
    found = Pilot(
        judge(comparison, HYBRID),
        best,
        len(sample.pairs(TRAIN)) + len(sample.pairs(TEST)),
        comparison,
        cost,
        commands_of(args, arms[best], training) if best in arms else [],
        [*sample.notes, *notes, *work_notes(comparison)],
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
    sample = sample_of(_source_of(stages), args, stages.split)
    (cost,) = estimates(dataclasses.replace(stages, split=TRAIN), stages.journal, sample).values()
    return [*sample.notes, *cost.lines()]


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


def arms_of(args: PilotArguments, stages: StageArguments) -> dict[str, Arm]:
    """Returns the arms that are trained, by name; the model before training is evaluated beside them.

    All train on rows of the same pairs. Another kind of data is another arm here, with stages of its own.

    Args:
        args: The mixtures.
        stages: The data set as configured.
    """
    mined = "dense" if "dense" in stages.miners else stages.miners[0]
    hybrid = {"mixture": args.mixture or f"synthetic=1,{mined}=2"}
    as_written = dataclasses.replace(stages, gates=[])
    return {
        IN_BATCH: Arm(stages, "rows", {"mixture": "none"}),
        DENSE: Arm(stages, "rows", {"mixture": args.dense_mixture or f"{mined}=3"}),
        HYBRID: Arm(stages, "rows", hybrid, writes=True),
        # What the guard is there to stop is what this arm measures.
        AS_WRITTEN: Arm(as_written, "rows-as-written", {**hybrid, "guard": "off"}, writes=True),
    }


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

    What needs no LLM is mined alone.
    """
    stages, folder = arm.stages, f"{args.output}-dataset"
    if arm.writes:
        options = {name: word for name, word in options_of(stages).items() if name not in _OF_THE_RUN}
        options["journal"] = str(stages.journal)
    else:
        options = options_of(part_of(stages, SourceArguments)) | options_of(part_of(stages, MiningArguments))
    options |= {"split": stages.split, "seed": str(args.seed), "output": folder}
    train = {"model": _model(args, stages), "dataset": folder, "split": stages.split, **training}
    train |= {**arm.changes, "seed": args.seed, "output": f"{args.output}-model"}
    return [
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


def _measured(report: Mapping[str, Any], output: Path) -> float | None:
    """Returns the completion tokens a second of the writing, and keeps them for when it is done."""
    path, run = output / "rate.json", report["generation"]["run"]
    if run["seconds"] and run["completion_tokens"]:
        path.write_text(json.dumps({_RATE: run["completion_tokens"] / run["seconds"]}), encoding="utf-8")
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
