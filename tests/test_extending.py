"""A gate, a miner, an engine and a loss of a user's own, ten lines each, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from dataset_builders.hardneg import HardNegatives
from syneg import load_source
from syneg.cli import main
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.llm.arguments import LLMArguments
from syneg.llm.engines import make_engine
from syneg.mining.arguments import MiningArguments
from syneg.resources import class_from_file, is_class_spec
from syneg.writing.strategy import find_strategy
from tests.commands.test_cli import fails

GATE = """
from syneg.gating.gate import Gate
from syneg.rows import make_dropped

class NoDigits(Gate):
    name = "no_digits"

    def apply(self, drafts, tolls):
        for draft in drafts:
            kept = [one for one in draft.row["negatives"] if not one["text"].endswith("7.")]
            for one in draft.row["negatives"]:
                if one not in kept:
                    tolls.dropped[self.name, "ends with 7", one["source"]] += 1
                    draft.dropped.append(make_dropped(draft.row, one, self.name, "It ends with 7."))
            draft.row["negatives"] = kept
"""

MINER = """
import numpy as np
from syneg.mining.candidates import Candidates, Miner

class Last(Miner):
    name = "last"

    def __init__(self, source, args):
        self.source = source

    def search(self, query_rows, depth):
        rows = np.arange(len(self.source.corpus))[::-1][:depth]
        scores = np.linspace(1, 0, len(rows), dtype=np.float32)
        return Candidates(np.tile(rows, (len(query_rows), 1)), np.tile(scores, (len(query_rows), 1)))
"""

ENGINE = """
import json
from syneg.llm.requests import Completion, Engine

class Echo(Engine):
    def __init__(self, llm, options):
        self.llm, self.options = llm, options

    def generate(self, requests):
        for i, request in enumerate(requests):
            text = json.dumps({"reasoning": "r", "hard_negative_document": f"{self.options['say']} {i}."})
            yield Completion(request.key, text, "stop", generator=self.llm)
"""

OBJECTIVE = '''
from torch.nn import functional as F
from syneg.training.objective import ContrastiveObjective

class Short(ContrastiveObjective):
    """Pulls each positive to its query besides."""

    def forward(self, embeddings, instances, columns, rows):
        loss, record = super().forward(embeddings, instances, columns, rows)
        queries, positives = embeddings[instances.query[rows]], embeddings[instances.positive[rows]]
        return loss + 1 - F.cosine_similarity(queries, positives), record
'''


def own(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_gate_a_miner_and_an_engine_of_ones_own(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate, miner, engine = (
        own(tmp_path, f"{name}.py", text) for name, text in {"g": GATE, "m": MINER, "e": ENGINE}.items()
    )
    output = tmp_path / "out"
    words = ["build", "--source", str(beir), "--miners", f"{miner}:Last,bm25", "--mined_per_miner", "2"]
    words += ["--engine", f"{engine}:Echo", "--llm", "me/echo", "--engine_options", "say=Note"]
    words += ["--gates", f"{gate}:NoDigits", "--output", str(output), "--max_score", "last=0.99"]
    assert main(words) == 0
    rows = load_dataset(str(output), split="train")
    sources = [[one["source"] for one in row["negatives"]] for row in rows]
    assert sources[0] == ["synthetic", "last", "last", "bm25", "bm25"]
    corpus = load_source(beir).document_ids
    mined = [one for one in rows[0]["negatives"] if one["source"] == "last"]
    # The last document scores 1, which is above the most that may be; known positives are left out as ever.
    assert [one["rank"] for one in mined] == [2, 3] and mined[0]["doc_id"] == corpus[-2]
    assert rows[0]["negatives"][0]["generator"] == "me/echo"
    dropped = list(load_dataset(str(output), "dropped", split="train"))
    assert {one["gate"] for one in dropped} == {"no_digits"}
    assert [one["negative"]["text"] for one in dropped if one["negative"]["source"] == "synthetic"] == [
        "Note 7."
    ]
    assert "no_digits dropped" in capsys.readouterr().out
    card = (output / "README.md").read_text()
    assert str(tmp_path) not in card, "where files lie is nobody's business"


def test_a_file_that_changes_makes_another_data_set(beir: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        words = ["--source", str(beir), "--gates", str(gate), "--miners", "bm25", "--engine", "recorded"]
        return HardNegatives.from_arguments(words, str(tmp_path / "cache")).config_id

    gate = tmp_path / "g.py"
    gate.write_text(GATE)
    before = fingerprint()
    assert fingerprint() == before
    gate.write_text(GATE.replace("7.", "17."))
    assert fingerprint() != before


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        (
            "gates",
            "from syneg.gating.gate import Gate\nclass G(Gate):\n    name = 'g'\n",
            "must define apply",
        ),
        ("gates", GATE.replace('name = "no_digits"', "pass"), "NoDigits.name must be a string"),
        ("gates", "x = 1\n", "expected one subclass of Gate, found 0 at all"),
        ("gates", "1 / 0\n", "fails with ZeroDivisionError"),
        (
            "miners",
            MINER.replace("search", "seek"),
            "Last must define search; see syneg.mining.candidates.Miner",
        ),
        ("engine", ENGINE.replace("generate", "make"), "Echo must define generate"),
        ("strategy", "from syneg import x\n", "fails with ImportError"),
    ],
)
def test_what_it_would_have_to_define(
    key: str, text: str, told: str, beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own(tmp_path, "own.py", text)
    words = ["build", "--source", str(beir), "--output", str(tmp_path / "out"), "--miners", "bm25"]
    line = fails(capsys, *words, f"--{key}", path)
    assert told in line and f"--{key} {path}" in line
    assert "no such file" in fails(capsys, *words, f"--{key}", str(tmp_path / "nowhere.py"))
    assert "own.py" in fails(capsys, *words, f"--{key}", f"{path}:Nobody")


def test_an_unknown_name_says_what_one_of_ones_own_would_be() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'checks'\?.*syneg\.gating\.gate\.Gate with name and"):
        GatingArguments(gates=["check"])
    with pytest.raises(InputError, match=r"Did you mean 'dense'\?.*candidates\.Miner with name and search"):
        MiningArguments(miners=["dens"])
    with pytest.raises(InputError, match=r"Did you mean 'ray'\?.*requests\.Engine with generate"):
        make_engine(LLMArguments(engine="rey"))
    with pytest.raises(InputError, match=r"Did you mean 'plain'\?.*Strategy with name, version"):
        find_strategy("plane")


def test_a_class_is_chosen_where_there_are_several(tmp_path: Path) -> None:
    path = own(tmp_path, "two.py", GATE + GATE.replace("NoDigits", "Other").replace("no_digits", "other"))
    from syneg.gating.gate import Gate

    base: type = Gate
    assert class_from_file(f"{path}:Other", base, "gates").name == "other"
    with pytest.raises(InputError, match=r"found 2: NoDigits, Other; say which, as in .*two\.py:NAME"):
        class_from_file(path, base, "gates")
    assert [is_class_spec(name) for name in ("a.py", "a/b.py:C", "checks", "py")] == [
        True,
        True,
        False,
        False,
    ]
    assert json.dumps(GatingArguments(gates=[path]).wanted) == json.dumps([path])


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from torch.nn import functional as F

    from syneg import ContrastiveArguments, ContrastiveTrainer, Mixture, SyNegCollator
    from tests.training.conftest import build_model, make_dataset

    folder, rows = build_model(tmp_path), make_dataset(4)

    def first_loss(objective: str | None) -> tuple[float, SentenceTransformer]:
        model = SentenceTransformer(folder, device="cpu")
        args = ContrastiveArguments(
            str(tmp_path / "out"),
            objective=objective,
            per_device_train_batch_size=4,
            max_steps=1,
            logging_steps=1,
            learning_rate=1e-9,
            save_strategy="no",
            disable_tqdm=True,
            guard="off",
        )
        collator = SyNegCollator(model, mixture=Mixture.parse("dense=1"))
        trainer = ContrastiveTrainer(model=model, args=args, train_dataset=rows, data_collator=collator)
        trainer.train()
        (loss,) = (line["loss"] for line in trainer.state.log_history if "loss" in line)
        return loss, model

    ours, model = first_loss(None)
    theirs, _ = first_loss(own(tmp_path, "o.py", OBJECTIVE))
    encoded = [model.encode(list(rows[name]), convert_to_tensor=True) for name in ("query", "positive")]
    pulled = float((1 - F.cosine_similarity(*encoded)).mean())
    assert theirs - ours == pytest.approx(pulled, abs=1e-3)
    with pytest.raises(InputError, match=r"unknown objective 'triplet': give FILE\.py:CLASS.*with forward"):
        first_loss("triplet")
    with pytest.raises(InputError, match="Short must define forward"):
        first_loss(own(tmp_path, "n.py", OBJECTIVE.replace("def forward", "def loss")))
