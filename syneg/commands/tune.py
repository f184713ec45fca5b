"""`syneg tune`: documents to a better retriever, and its figure before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from syneg.commands.ask import ASK_BASICS
from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.sources import SourceArguments
from syneg.writing.query_arguments import QueryArguments


@dataclass
class TuneArguments:
    """What is trained on the written queries, and how; all else is as in `syneg ask`."""

    model: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={
            "help": "The retriever: a folder, a Hub id or package:NAME/FOLDER. It also mines, and makes the "
            "round trip where no --encoder is named for that."
        },
    )
    test_documents: float = field(
        default=0.2,
        metadata={
            "help": "Share of the documents whose written queries are the test, where the source has no "
            "split test of real ones."
        },
    )
    mined_per_miner: int = field(default=3, metadata={"help": "Mined negatives of a query."})
    num_train_epochs: float | None = field(
        default=None,
        metadata={
            "help": "Epochs; if null 2 where real queries were shown as examples or stand beside the written "
            "ones, else 1, as measured."
        },
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "The peak learning rate."})
    train_temperature: float = field(default=0.05, metadata={"help": "tau in exp(similarity / tau)."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Instances a step."})
    max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; the model's own where null."}
    )
    save_best: float = field(
        default=0.1,
        metadata={
            "help": "Share of the training queries that say after which epoch the model is best; 0 keeps the "
            "last."
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the source, the model or the engine cannot be used.
    """
    from syneg.asking import AskFolderArguments, ask_queries
    from syneg.commands import evaluate, mine, train
    from syneg.encoders import load_encoder
    from syneg.gating.queries import QueryGateArguments
    from syneg.sources import source_of

    parser = ConfigParser(
        [AskFolderArguments, SourceArguments, QueryArguments, QueryGateArguments, TuneArguments],
        basics=(*ASK_BASICS, "model", "max_length", "num_train_epochs", "save_best"),
        prog="syneg tune",
        description="Asks an LLM for queries that documents answer, mines negatives for them, trains a "
        "retriever on them, and evaluates it before and after. Run it again to go on where it stopped.",
        conflict_handler="resolve",
    )
    output, where, args, gates, tune = parser.parse(argv)
    folder = Path(output.output)
    asked, mined, model, results = (str(folder / name) for name in ("asked", "mined", "model", "results"))
    if Path(model).exists() and not output.overwrite:
        raise InputError(f"{model}: exists. Choose another --output, or replace it with --overwrite.")
    # Before an LLM is asked for hours: the model is there, and the source can be read.
    load_encoder(tune.model)
    has_test = "test" in source_of(where).qrels
    args = replace(
        args,
        journal=args.journal or str(folder / "journal"),
        test_documents=0.0 if has_test else tune.test_documents,
    )
    if gates.encoder == QueryGateArguments().encoder:
        gates = replace(gates, encoder=tune.model)
    gates = replace(gates, encode_max_length=gates.encode_max_length or tune.max_length)
    # What lies between is made again at no cost: completions are journalled, embeddings cached.
    lines = ask_queries(where, args, gates, replace(output, output=asked, overwrite=True))
    print("\n".join(lines), flush=True)
    if args.dry_run or args.shard:
        return 0
    mining = {"source": asked, "miners": "dense", "encoder": tune.model, "output": mined, "overwrite": "true"}
    mining |= {"mined_per_miner": tune.mined_per_miner, "encode_max_length": tune.max_length}
    words = _words({**mining, "mining_cache": gates.mining_cache, "seed": output.seed})
    mine.main(words, says_next=False)
    has_real = args.with_pairs or any(line.startswith("examples:") for line in lines)
    epochs = tune.num_train_epochs or (2 if has_real else 1)
    training = {"model": tune.model, "dataset": mined, "output": model, "mixture": "all", "seed": output.seed}
    training |= {"num_train_epochs": epochs, "learning_rate": tune.learning_rate}
    training |= {"temperature": tune.train_temperature, "max_length": tune.max_length}
    training |= {"per_device_train_batch_size": tune.per_device_train_batch_size}
    training |= {"save_best": tune.save_best, "empty_rows": "in_batch", "save_strategy": "no"}
    if code := train.main(_words(training), says_next=False):
        return code
    evaluation = {"model": model, "baseline": tune.model, "output": results, "max_length": tune.max_length}
    evaluation |= {"overwrite": "true", "source": where.source if has_test else asked}
    if has_test:
        evaluation |= {
            name: getattr(where, name) for name in ("test_share", "test_seed", "unknown_documents")
        }
        evaluation |= {name: getattr(where, name) for name in ("query_column", "positive_column")}
    evaluate.main(_words(evaluation))
    if not has_test:
        print("the test queries are written ones, too: they favour what resembles the writer")
    return 0


def _words(options: dict[str, Any]) -> list[str]:
    """Returns options as words of a command line, those that are None left out."""
    return [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
