"""The card of a trained model: what it says of what it was trained from, on what, and what came of it."""

import pytest
from huggingface_hub import ModelCard

from syneg.hub.cards import DatasetCardInfo
from syneg.hub.folders import FolderWriter
from syneg.rows import FEATURES
from syneg.training.arguments import ContrastiveArguments
from syneg.training.report import TrainingReport
from syneg.training.run import TrainArguments, run
from syneg.training.saving import add_section, describe, shown_name

from .conftest import make_dataset


@pytest.fixture
def folder(tmp_path):
    """A data set folder of ours that is called as little as can be."""
    with FolderWriter(tmp_path / "dataset") as writer:
        writer.write("default", "train", make_dataset(8), FEATURES)
        writer.write_card(DatasetCardInfo(name="toy-hardneg"))
    return tmp_path / "dataset"


def arguments(output, **options):
    return ContrastiveArguments(
        str(output),
        max_steps=1,
        save_strategy="no",
        per_device_train_batch_size=4,
        disable_tqdm=True,
        **options,
    )


def test_a_card_names_its_parts_and_shows_a_query_of_the_rows(tiny_model_path, folder, tmp_path):
    trained = run(
        TrainArguments(tiny_model_path, str(folder), mixture="synthetic=1"), arguments(tmp_path / "out")
    ).folder
    text = (trained / "README.md").read_text()
    assert "on the toy-hardneg dataset" in text
    assert "dataset dataset" not in text
    assert "Red Planet" not in text
    row = make_dataset(8)[0]
    usage = text.split("## Usage")[1].split("## Training Details")[0]
    assert row["query"] in usage and row["positive"] in usage
    brief = text.split("## Training in brief")[1].split("## Model Details")[0]
    assert "**Data set:** `toy-hardneg`" in brief
    assert "**Mixture:** `synthetic=1`" in brief
    assert str(tmp_path) not in text, "where a folder lies is nobody else's business"


def test_what_is_from_the_hub_is_linked(tiny_model, tmp_path):
    from syneg.training.collator import SyNegCollator
    from syneg.training.mixing import Mixture
    from syneg.training.trainer import ContrastiveTrainer

    trainer = ContrastiveTrainer(
        model=tiny_model,
        args=arguments(tmp_path / "out"),
        train_dataset=make_dataset(8),
        data_collator=SyNegCollator(tiny_model, mixture=Mixture.parse("synthetic=1")),
    )
    trainer.report.model, trainer.report.dataset = "someone/model", "someone/rows"
    trainer.train()
    trainer.save_model()
    text = (tmp_path / "out" / "README.md").read_text()
    data = ModelCard(text).data
    assert data.base_model == "someone/model"
    assert data.datasets == ["someone/rows"]
    assert "finetuned from [someone/model]" in text
    assert "(https://huggingface.co/datasets/someone/rows)" in text


def test_the_brief_has_the_figures_before_and_after_and_no_zeros(tmp_path):
    report = TrainingReport(mixture="synthetic=1", model="someone/model", instances=12)
    report.drawn.update({"synthetic": 12})
    report.metrics = {"before": {"nDCG@10": 0.5}, "after": {"nDCG@10": 0.625}}
    text = describe(report, arguments(tmp_path))
    assert "| before | 0.5000 |\n| after | 0.6250 |" in text
    assert "**Base model:** `someone/model`" in text
    assert "Data set" not in text
    assert "not to be had" not in text and "another source" not in text
    (tmp_path / "README.md").write_text("# Model\n\n## Model Details\n\nx\n")
    for _ in range(2):
        add_section(tmp_path, text)
    card = (tmp_path / "README.md").read_text()
    assert card.count("### Negatives") == 1
    assert card.index("## Training in brief") < card.index("## Model Details\n\nx")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", None),
        ("parquet", None),
        ("generator", None),
        ("me/rows", "me/rows"),
        ("package:a/b", "package:a/b"),
    ],
)
def test_names(name, shown):
    assert shown_name(name) == shown


def test_a_folder_is_called_by_its_manifest_or_its_own_name(folder, tmp_path):
    assert shown_name(str(folder)) == "toy-hardneg"
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert shown_name(str(tmp_path / "models" / "mine")) == "mine"
