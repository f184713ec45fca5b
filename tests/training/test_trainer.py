import copy
import itertools
import random
import shutil

import pytest
import torch
from sentence_transformers import SentenceTransformer

from syneg.errors import InputError
from syneg.training.arguments import ContrastiveArguments
from syneg.training.chunks import ChunkPlan, Kept, split_chunks
from syneg.training.collator import SyNegCollator
from syneg.training.mixing import Mixture
from syneg.training.texts import Texts
from syneg.training.trainer import ContrastiveTrainer, NonFiniteLoss

from .conftest import make_dataset


def make_trainer(model, folder, dataset=None, mixture="synthetic=1,dense=2", **options):
    options = {"per_device_train_batch_size": 4, "save_strategy": "no", "disable_tqdm": True, **options}
    args = ContrastiveArguments(str(folder), **options)
    collator = SyNegCollator(model, Mixture.parse(mixture), seed=args.seed)
    dataset = make_dataset(12) if dataset is None else dataset
    return ContrastiveTrainer(model=model, args=args, train_dataset=dataset, data_collator=collator)


def gradients(trainer, batches):
    """The gradients of one step over these batches, which count as accumulated."""
    model = trainer.model
    model.zero_grad()
    for i, batch in enumerate(batches):
        trainer.accelerator.gradient_state._set_sync_gradients(i == len(batches) - 1)
        loss = trainer.training_step(model, batch)
    return float(loss), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=tolerance, rtol=1e-4), name


def prepare(trainer):
    """What `train` does before the first step."""
    trainer.create_optimizer()
    trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model)
    return trainer


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("which", ["tiny_model_path", "dropout_model_path"])
@pytest.mark.parametrize("other", ["always", "selective"])
def test_gradient_cache_equals_direct(request, tmp_path, in_batch, which, other):
    path = request.getfixturevalue(which)
    found = []
    for cache in ("never", other):
        model = SentenceTransformer(path, device="cpu")
        trainer = prepare(
            make_trainer(model, tmp_path, gradient_cache=cache, chunk_tokens=64, in_batch_negatives=in_batch)
        )
        batch = trainer.data_collator(make_dataset(12).to_list())
        torch.manual_seed(5)
        passes = []
        model[0].model.encoder.layer[0].register_forward_hook(lambda *_, passes=passes: passes.append(1))
        found.append(gradients(trainer, [batch]))
        chunks = len(trainer._budget.plan(trainer._joined([batch])[1]).chunks)
        assert chunks > 3 and len(passes) == (2 * chunks - 1 if cache == "always" else chunks)
    (direct_loss, direct), (cached_loss, cached) = found
    assert cached_loss == pytest.approx(direct_loss, abs=1e-6)
    assert_equal(cached, direct)


@pytest.mark.parametrize("kept", [Kept(1, 1), Kept(3, 3), Kept(3, 1)])
@pytest.mark.parametrize("bf16", [False, True])
def test_keeping_some_activations_equals_direct(dropout_model_path, tmp_path, monkeypatch, kept, bf16):
    found = []
    for what in (None, kept):
        model = SentenceTransformer(dropout_model_path, device="cpu")
        trainer = prepare(make_trainer(model, tmp_path, chunk_tokens=64, bf16=bf16))
        if what is not None:
            monkeypatch.setattr(ChunkPlan, "fitting", lambda *_, what=what: what)
        batch = trainer.data_collator(make_dataset(12).to_list())
        assert len(trainer._budget.plan(trainer._joined([batch])[1]).chunks) > 3
        torch.manual_seed(5)
        found.append(gradients(trainer, [batch]))
    (direct_loss, direct), (mixed_loss, mixed) = found
    assert mixed_loss == pytest.approx(direct_loss, abs=0.05 if bf16 else 1e-6)
    assert_equal(mixed, direct, 0.05 if bf16 else 1e-5)


def test_memory_decides_what_is_kept():
    """Of a token's 8 bytes 3 are not cheap to have again."""
    texts = Texts({}, torch.full((6,), 10), torch.zeros(6, dtype=torch.long), [0])
    plan = ChunkPlan(texts, [[0], [1], [2], [3], [4, 5]], torch.arange(6) * 10)
    fits = {480: (5, 5), 479: (5, 4), 330: (5, 2), 329: (5, 1), 180: (5, 1), 179: (4, 1), 0: (1, 1)}
    assert {memory: plan.fitting(8, 3, memory) for memory in fits} == fits
    # Where nothing can be computed again a chunk is kept whole or not at all.
    assert [plan.fitting(8, 8, memory) for memory in (480, 479, 240, 0)] == [(5, 5), (4, 4), (2, 2), (1, 1)]


def test_best_split_is_the_best():
    """Against every way of cutting the texts, sorted by length, into chunks within the budget."""
    generator = random.Random(0)
    for _ in range(20):
        lengths = sorted((generator.randint(3, 40) for _ in range(9)), reverse=True)
        cost = generator.choice([0, 10, 40])

        def price(chunks, lengths=lengths, cost=cost):
            return sum(len(chunk) * lengths[chunk[0]] + cost for chunk in chunks)

        ways = []
        for cuts in itertools.product([False, True], repeat=8):
            ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [9]
            chunks = [list(range(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
            if all(len(chunk) == 1 or len(chunk) * lengths[chunk[0]] <= 64 for chunk in chunks):
                ways.append(price(chunks))
        found = split_chunks(lengths, [0] * 9, 64, cost)
        assert sorted(i for chunk in found for i in chunk) == list(range(9))
        assert price(found) == min(ways)


def test_many_texts_are_split_within_the_budget(monkeypatch):
    monkeypatch.setattr("syneg.training.chunks.EXACT_SPLIT", 10)
    lengths = [5, 90, 7, 7, 8, 30, 31, 2, 2, 2, 3, 3, 3]
    chunks = split_chunks(lengths, [0] * 6 + [1] * 7, 64)
    assert sorted(i for chunk in chunks for i in chunk) == list(range(13))
    assert all(len(c) == 1 or len(c) * max(lengths[i] for i in c) <= 64 for c in chunks)
    assert all(len({i < 6 for i in chunk}) == 1 for chunk in chunks)


def test_equals_a_plain_implementation(tiny_model, tmp_path):
    """Against padding everything at once and cross entropy over a matrix written out by hand."""
    trainer = prepare(make_trainer(tiny_model, tmp_path, false_negative_margin=None, chunk_tokens=40))
    rows = make_dataset(6, num_dense=2, num_synthetic=1).to_list()
    for row in rows:  # Negatives that are no other row's positive, so that nothing is masked.
        row["negatives"] = [
            n | {"text": n["text"] + f" {row['query']}", "doc_id": None} for n in row["negatives"]
        ]
    reference = copy.deepcopy(tiny_model)
    loss, found = gradients(trainer, [trainer.data_collator(rows)])

    reference.train()
    negatives = [n["text"] for row in rows for n in row["negatives"]]
    texts = [row["query"] for row in rows] + [row["positive"] for row in rows] + negatives
    features = reference.preprocess(texts)
    vectors = torch.nn.functional.normalize(reference(features)["sentence_embedding"], dim=1)
    scores = vectors[:6] @ vectors[6:].T / 0.02
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(6))
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-4)
    assert_equal(found, {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}, 1e-4)


@pytest.mark.parametrize("in_batch", [True, False])
def test_accumulated_steps_are_one_batch(tiny_model_path, tmp_path, in_batch):
    rows = make_dataset(12).to_list()
    found = []
    for parts in ([rows], [rows[:5], rows[5:8], rows[8:]]):
        model = SentenceTransformer(tiny_model_path, device="cpu")
        trainer = prepare(make_trainer(model, tmp_path, in_batch_negatives=in_batch, chunk_tokens=64))
        found.append(gradients(trainer, [trainer.data_collator(part) for part in parts]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert_equal(found[1][1], found[0][1])


def test_training_lowers_the_loss_and_the_folder_loads(tiny_model, tmp_path):
    trainer = make_trainer(
        tiny_model,
        tmp_path / "out",
        num_train_epochs=6,
        learning_rate=5e-3,
        logging_steps=3,
        temperature=0.05,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.report.instances == 72 and trainer.report.drawn == {"synthetic": 72, "dense": 144}
    trainer.save_model()
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    trained = trainer.model.eval().encode(["ba be bi"])
    assert torch.allclose(torch.tensor(loaded.encode(["ba be bi"])), torch.tensor(trained), atol=1e-6)


def test_log_tells_the_sources_apart(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, logging_steps=1, max_steps=1, gradient_variance=True)
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    for name in ("synthetic_similarity", "dense_mass", "masked_false_negatives", "tokens_per_second"):
        assert name in entry
    assert entry["gradient_variance"] > 0
    assert entry["synthetic_mass"] + entry["dense_mass"] == pytest.approx(
        entry["own_negatives_mass"], abs=2e-4
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU: g++")
def test_compiled_equals_uncompiled(tiny_model_path, tmp_path):
    found = []
    for compiled in (False, True):
        model = SentenceTransformer(tiny_model_path, device="cpu")
        trainer = make_trainer(
            model, tmp_path, torch_compile=compiled, max_steps=2, logging_steps=1, gradient_cache="always"
        )
        trainer.train()
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        trainer.save_model(str(tmp_path / "saved"))
        loaded = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        assert torch.allclose(
            torch.tensor(loaded.encode(["ba be"])), torch.tensor(model.eval().encode(["ba be"])), atol=1e-5
        )
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_other_attention_than_flash_has_padding_again(tiny_model, tmp_path):
    tiny_model[0].can_flatten_inputs = True  # As it is in a model that was loaded with flash attention.
    trainer = make_trainer(tiny_model, tmp_path, attention="eager", max_steps=1)
    forward, masks = tiny_model.forward, []

    def watched(features, **options):
        masks.append(features.get("attention_mask"))
        return forward(features, **options)

    tiny_model.forward = watched
    trainer.train()
    assert masks and all(mask is not None for mask in masks)
    assert tiny_model[0].model.config._attn_implementation == "sdpa"


def test_a_compiled_model_has_no_sparse_table(tiny_model, tmp_path):
    """Its gradient would be cut out of what is compiled."""
    for compiled in (False, True):
        trainer = make_trainer(tiny_model, tmp_path, torch_compile=compiled)
        table = trainer._embedder(tiny_model).table
        assert (table is None) == compiled


def test_bf16_on_cpu(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, bf16=True, max_steps=2)
    trainer.train()
    assert all(p.dtype == torch.float32 for p in tiny_model.parameters())


def test_loss_that_is_not_finite_stops_with_the_rows(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path)
    with torch.no_grad():
        tiny_model[0].model.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLoss, match=r"q\d+/d\d+"):
        trainer.train()


def test_out_of_memory_halves_the_chunks_once_said(tiny_model, tmp_path, caplog):
    trainer = make_trainer(tiny_model, tmp_path, chunk_tokens=256, max_steps=1)
    forward = tiny_model.forward

    def limited(features, **options):
        if features["input_ids"].numel() > 130:
            raise torch.OutOfMemoryError("pretended")
        return forward(features, **options)

    tiny_model.forward = limited
    trainer.train()
    assert trainer._budget.tokens == 128
    assert trainer.state.global_step == 1
    assert caplog.text.count("Out of memory") == 1


def test_mixture_with_a_source_no_row_has(tiny_model, tmp_path):
    with pytest.raises(InputError, match=r"bm25.*found: dense, synthetic"):
        make_trainer(tiny_model, tmp_path, mixture="bm25=2")


def test_pair_without_negatives_is_found_before_training(tiny_model, tmp_path):
    rows = make_dataset(6)
    empty = rows.map(lambda row, i: {"negatives": [] if i == 3 else row["negatives"]}, with_indices=True)
    with pytest.raises(InputError, match=r"row 3 \(q3/d3\)"):
        make_trainer(tiny_model, tmp_path, dataset=empty.cast(rows.features))


def test_nothing_to_learn_from(tiny_model, tmp_path):
    with pytest.raises(InputError, match="nothing to learn from"):
        make_trainer(tiny_model, tmp_path, mixture="none", in_batch_negatives=False)


def test_in_batch_only(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, mixture="none", max_steps=1)
    trainer.train()
    assert trainer.report.drawn == {} and trainer.report.without_negatives == 4


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_the_same_trajectory(dropout_model_path, tmp_path, workers):
    """With dropout, in the middle of the second epoch, and from a fresh process's state."""
    options = {
        "num_train_epochs": 3,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 5,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "gradient_cache": "always",
        "chunk_tokens": 100,
    }
    runs = []
    for resume in (None, tmp_path / "run" / "checkpoint-5"):
        torch.manual_seed(0 if resume is None else 123)
        model = SentenceTransformer(dropout_model_path, device="cpu")
        folder = tmp_path / ("run" if resume is None else "resumed")
        trainer = make_trainer(model, folder, **options)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        runs.append((weights(model), [e["loss"] for e in trainer.state.log_history if "loss" in e]))
    (whole, losses), (resumed, again) = runs
    assert len(losses) == 9
    assert again == pytest.approx(losses, abs=1e-6)
    assert all(torch.allclose(resumed[name], value, atol=1e-6) for name, value in whole.items())


def test_streamed_rows_train(tiny_model, tmp_path):
    stream = make_dataset(10).to_iterable_dataset(num_shards=2)
    trainer = make_trainer(tiny_model, tmp_path, dataset=stream, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.report.instances > 12


def test_evaluation_loss_and_best_model(tiny_model, tmp_path):
    args = ContrastiveArguments(
        str(tmp_path),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=12,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        max_steps=4,
        load_best_model_at_end=True,
        disable_tqdm=True,
    )
    dataset = make_dataset(12)
    collator = SyNegCollator(tiny_model, {"synthetic": 1, "dense": 2})
    trainer = ContrastiveTrainer(
        model=tiny_model, args=args, train_dataset=dataset, eval_dataset=dataset, data_collator=collator
    )
    before = trainer.evaluate()["eval_loss"]
    expected, _ = gradients(prepare(trainer), [collator(dataset.to_list())])
    assert before == pytest.approx(expected, abs=1e-4)
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None
    assert len([entry for entry in trainer.state.log_history if "eval_loss" in entry]) == 2


def test_selective_recomputation_keeps_less(tiny_model_path, tmp_path):
    trainer = prepare(make_trainer(SentenceTransformer(tiny_model_path, device="cpu"), tmp_path))
    plan = trainer._budget.plan(trainer._joined([trainer.data_collator(make_dataset(12).to_list())])[1])
    everything, dear = trainer._embedder(trainer.model_wrapped).bytes_per_token(plan)
    layers, width, inner = 2, 32, 64
    # The feed-forward network's activations, and both layer norms' results.
    assert everything - dear == pytest.approx(4 * layers * (inner + 2 * width), rel=0.1)
    assert everything > 1.3 * dear


def test_unusable_selective_recomputation(tmp_path):
    with pytest.raises(InputError, match="leave out --gradient_checkpointing"):
        ContrastiveArguments(str(tmp_path), gradient_cache="selective", gradient_checkpointing=True)


def test_gradient_checkpointing_gives_the_same_gradients(tiny_model_path, tmp_path):
    found = []
    for checkpointing in (False, True):
        model = SentenceTransformer(tiny_model_path, device="cpu")
        trainer = make_trainer(
            model, tmp_path, gradient_checkpointing=checkpointing, max_steps=1, optim="sgd"
        )
        trainer.train()
        found.append(weights(model))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_prompts_that_pooling_leaves_out(tiny_model_path, tmp_path):
    """Against the model's own encoding, chunk by chunk, with different prompts for both sides."""
    model = SentenceTransformer(tiny_model_path, device="cpu")
    model[1].include_prompt = False
    model.prompts = {"query": "ba be: ", "document": "da: "}
    trainer = prepare(make_trainer(model, tmp_path, chunk_tokens=60))
    rows = make_dataset(6).to_list()
    instances, texts = trainer._joined([trainer.data_collator(rows)])
    model.eval()
    plan = trainer._budget.plan(texts)
    found = plan.joined(trainer._embedder(model).without_graph(plan, plan.chunks)[0])
    queries = torch.tensor(model.encode_query([row["query"] for row in rows]))
    documents = torch.tensor(model.encode_document([row["positive"] for row in rows]))
    assert torch.allclose(found[instances.query], queries, atol=1e-5)
    assert torch.allclose(found[instances.positive], documents, atol=1e-5)


def test_card_tells_what_was_done(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, mixture="synthetic=3,dense=1", max_steps=1)
    trainer.train()
    trainer.report.dataset = "someone/rows"
    trainer.report.metrics = {"before": {"nDCG@10": 0.5}, "after": {"nDCG@10": 0.625}}
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert card.count("### Negatives") == 1
    for words in (
        "`synthetic=3,dense=1`",
        "`someone/rows`",
        "4 instead of synthetic",
        "| after | 0.6250 |",
        "learning_rate",
    ):
        assert words in card
