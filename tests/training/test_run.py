import pytest
import torch
from sentence_transformers import SentenceTransformer

from syneg.errors import InputError
from syneg.training.arguments import ContrastiveArguments
from syneg.training.run import TrainArguments, load_model, run

from .conftest import make_dataset


@pytest.fixture
def rows(tmp_path):
    make_dataset(8).to_parquet(tmp_path / "rows" / "train-00000-of-00001.parquet")
    return str(tmp_path / "rows")


def arguments(tmp_path, **options):
    return ContrastiveArguments(
        str(tmp_path / "out"),
        per_device_train_batch_size=4,
        max_steps=3,
        learning_rate=1e-2,
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("cache", ["never", "always"])
def test_lora_trains_saves_and_loads(tiny_model_path, rows, tmp_path, merge, cache):
    what = TrainArguments(tiny_model_path, rows, lora_rank=4, lora_merge=merge)
    folder = run(what, arguments(tmp_path, gradient_cache=cache, chunk_tokens=64))
    assert bool(list(folder.rglob("adapter_model.safetensors"))) is not merge
    loaded = SentenceTransformer(str(folder), device="cpu").encode(["ba be bi"])
    before = SentenceTransformer(tiny_model_path, device="cpu").encode(["ba be bi"])
    assert abs(loaded - before).max() > 1e-4
    assert "`synthetic=1,dense=2`" in (folder / "README.md").read_text()


def test_merged_weights_give_what_the_adapters_gave(tiny_model_path, rows, tmp_path):
    found = []
    for merge in (False, True):
        what = TrainArguments(tiny_model_path, rows, lora_rank=4, lora_merge=merge)
        folder = run(what, arguments(tmp_path / str(merge)))
        found.append(torch.tensor(SentenceTransformer(str(folder), device="cpu").encode(["ba be", "da"])))
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_pooling_is_replaced(tiny_model_path):
    model = load_model(TrainArguments(tiny_model_path, "", pooling="cls"))
    assert model[1].pooling_mode == "cls" or model[1].pooling_mode == ("cls",)
    with pytest.raises(InputError, match="--pooling"):
        load_model(TrainArguments(tiny_model_path, "", pooling="median"))


def test_four_bit_says_what_it_needs(tiny_model_path):
    with pytest.raises(InputError, match="lora_rank"):
        load_model(TrainArguments(tiny_model_path, "", quantize="4bit"))
