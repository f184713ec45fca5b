"""The card of a model: what the Hub reads of it, and where its parts come from."""

import json

import pytest
from huggingface_hub import ModelCard

from syneg.commands.push import main
from syneg.errors import InputError
from syneg.hub.model_cards import ModelCardInfo, ModelResult, model_card, read_mteb_results

RESULT = ModelResult(
    task="SciFact",
    split="test",
    metrics={"ndcg_at_10": 0.6812345, "recall_at_10": 0.8},
    dataset="mteb/scifact",
    revision="0228b52",
    before={"ndcg_at_10": 0.6451},
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 384}')
    (folder / "config_sentence_transformers.json").write_text('{"similarity_fn_name": "cosine"}')
    return folder


@pytest.fixture
def trained(folder):
    """A folder with the card of sentence-transformers, as far as it matters here."""
    (folder / "README.md").write_text(
        "---\nbase_model: sentence-transformers/all-MiniLM-L6-v2\nlanguage: en\ndatasets:\n"
        "- syneg/scifact-hardneg\n- /home/me/private\ntags:\n- generated_from_trainer\nwidget:\n"
        "- source_sentence: a\n---\n# SentenceTransformer\n\n"
        'model = SentenceTransformer("sentence_transformers_model_id")\n\n'
        "## Training Details\n\nfor 3 epochs\n"
    )
    return folder


def mteb_file(folder, task="SciFact", ndcg=0.68):
    path = folder / "org__model" / "1" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = [{"ndcg_at_10": ndcg, "recall_at_10": 0.8, "mrr_at_10": 0.6, "hf_subset": "default"}]
    path.write_text(
        json.dumps({"task_name": task, "dataset_revision": "0228b52", "scores": {"test": scores}})
    )
    (path.parent / "model_meta.json").write_text("{}")
    return folder


def test_the_model_index_holds_the_results(folder):
    card = ModelCard(model_card(ModelCardInfo(name="tiny", results=[RESULT]), folder))
    (first, second) = card.data.eval_results
    assert (first.dataset_type, first.dataset_name, first.dataset_split) == (
        "mteb/scifact",
        "SciFact",
        "test",
    )
    assert (first.metric_type, first.metric_name, first.metric_value) == ("ndcg_at_10", "nDCG@10", 0.68123)
    assert second.metric_type == "recall_at_10"
    assert card.data.model_name == "tiny"


def test_the_text_shows_the_results_beside_the_base_model(folder):
    info = ModelCardInfo(name="tiny", repo_id="me/tiny", revision="v1", results=[RESULT])
    text = model_card(info, folder)
    assert "<td>SciFact</td><td>test</td><td>0.6812 (0.6451)</td><td>0.8000</td>" in text
    assert 'SentenceTransformer("me/tiny", revision="v1")' in text
    assert "vectors of 384 numbers, compared by cosine" in text


def test_base_model_and_data_set_are_linked(folder):
    info = ModelCardInfo(name="tiny", base_model="BAAI/bge-large-en-v1.5", datasets=["syneg/scifact-hardneg"])
    text = model_card(info, folder)
    data = ModelCard(text).data
    assert data.base_model == "BAAI/bge-large-en-v1.5"
    assert data.datasets == ["syneg/scifact-hardneg"]
    assert "(https://huggingface.co/BAAI/bge-large-en-v1.5)" in text
    assert "(https://huggingface.co/datasets/syneg/scifact-hardneg)" in text


def test_the_card_that_training_left_is_kept_and_completed(trained):
    info = ModelCardInfo(name="tiny", repo_id="me/tiny", licence="mit", results=[RESULT])
    text = model_card(info, trained)
    data = ModelCard(text).data
    assert data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert data.datasets == ["syneg/scifact-hardneg"], "a path here is nobody else's business"
    assert (data.language, data.license) == ("en", "mit")
    assert data["widget"] == [{"source_sentence": "a"}]
    assert data.tags[:2] == ["generated_from_trainer", "syneg"]
    assert data.eval_results[0].metric_value == 0.68123
    assert 'SentenceTransformer("me/tiny")' in text
    assert text.index("## Results") < text.index("## Training Details\n\nfor 3 epochs")
    (trained / "README.md").write_text(text)
    assert model_card(info, trained) == text, "done again, nothing is there twice"


def test_a_card_that_cannot_be_read_is_named(folder):
    (folder / "README.md").write_text("---\na: [\n---\n")
    with pytest.raises(InputError, match=r"README\.md: its YAML cannot be read"):
        model_card(ModelCardInfo(name="tiny"), folder)


@pytest.mark.parametrize("text", ["x](http://evil.example)", "<script>alert(1)</script>", "a\n---\nb: c"])
def test_hostile_names_stay_in_their_places(folder, text):
    result = ModelResult(text, text, {"ndcg_at_10": 0.5}, text)
    info = ModelCardInfo(
        name=text, base_model=text, datasets=[text], training={text: text}, results=[result], limits=[text]
    )
    card = model_card(info, folder)
    assert ModelCard(card).data.base_model == text
    body = card.split("\n---\n", 1)[1]
    assert "<script" not in body
    assert "\nb: c" not in body


def test_mteb_files_are_read_and_compared(tmp_path):
    after, before = mteb_file(tmp_path / "after", ndcg=0.7), mteb_file(tmp_path / "before", ndcg=0.6)
    (result,) = read_mteb_results(after, before)
    assert result.metrics == {"ndcg_at_10": 0.7, "recall_at_10": 0.8, "mrr_at_10": 0.6}
    assert result.before["ndcg_at_10"] == 0.6
    assert (result.task, result.split, result.revision) == ("SciFact", "test", "0228b52")
    assert result.dataset == "mteb/scifact"


def test_result_folders_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match="no result files"):
        read_mteb_results(tmp_path / "nothing")
    mteb_file(tmp_path / "two" / "a")
    mteb_file(tmp_path / "two" / "b")
    with pytest.raises(InputError, match="has two results"):
        read_mteb_results(tmp_path / "two")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "SciFact.json").write_text("{")
    with pytest.raises(InputError, match=r"SciFact\.json: not JSON"):
        read_mteb_results(tmp_path / "broken")


def test_push_shows_the_card_made_from_the_command_line(trained, tmp_path, capsys):
    results = mteb_file(tmp_path / "results")
    card = ["--licence", "mit", "--model_results", str(results), "--trained_on", "me/a,me/b"]
    main(["--folder", str(trained), "--repo_id", "me/tiny", "--dry_run", *card])
    out = capsys.readouterr().out
    assert "license: mit" in out
    assert "- me/a\n- me/b" in out
    assert "<td>0.6800</td>" in out
    assert "nothing was sent" in out
    main(["--folder", str(trained), "--repo_id", "me/tiny", "--dry_run"])
    out = capsys.readouterr().out
    assert "# SentenceTransformer" in out
    assert 'SentenceTransformer("me/tiny")' in out
