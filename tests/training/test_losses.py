"""Losses against values worked out by hand, and against other implementations."""

import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from syneg.errors import InputError
from syneg.training import losses
from syneg.training.arguments import ContrastiveArguments
from syneg.training.instances import Instances, id_key, key_of, text_key
from syneg.training.objective import ContrastiveObjective

ALL = torch.ones(1, 2, dtype=torch.bool)
OWN = torch.tensor([[0.5, 0.4, 0.1]])


def test_info_nce_by_hand():
    """f(0.5) / (f(0.5) + f(0.4) + f(0.1)) with f = exp(s / 0.1)."""
    expected = -math.log(math.exp(5) / (math.exp(5) + math.exp(4) + math.exp(1)))
    assert losses.info_nce(OWN, ALL, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_with_masks_and_shared_by_hand():
    shared = torch.tensor([[0.3, 0.9]])
    found = losses.info_nce(OWN, torch.tensor([[True, False]]), 0.1, shared, torch.tensor([[True, False]]))
    expected = -math.log(math.exp(5) / (math.exp(5) + math.exp(4) + math.exp(3)))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_of_info_nce_is_finite_where_everything_is_masked():
    own = OWN.clone().requires_grad_()
    shared = torch.tensor([[0.3, 0.9]], requires_grad=True)
    loss = losses.info_nce(own, ~ALL, 0.02, shared, ~ALL)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert torch.isfinite(own.grad).all() and torch.isfinite(shared.grad).all()


def test_gradient_is_the_share_of_the_softmax():
    """dL/ds(q,d-) = p(d-) / tau (SyNeg, section on gradient variance)."""
    own = OWN.clone().requires_grad_()
    losses.info_nce(own, ALL, 0.1).sum().backward()
    assert torch.allclose(own.grad[0, 1:], torch.softmax(OWN / 0.1, 1)[0, 1:] / 0.1, atol=1e-5)


def test_margin_and_hardness_by_hand():
    scores = torch.tensor([[0.59, 0.61]])
    assert losses.below_margin(scores, torch.tensor([0.5]), 0.1).tolist() == [[True, False]]
    assert losses.below_margin(scores, torch.tensor([0.5]), None).all()
    assert losses.hardness_bias(OWN, 5.0).tolist() == [pytest.approx([2.0, 0.5])]


def test_kl_against_torch_and_with_unknown_scores():
    teacher = torch.tensor([[3.0, 1.0, 2.0]])
    expected = F.kl_div(
        F.log_softmax(OWN / 0.1, 1), F.log_softmax(teacher / 2, 1), log_target=True, reduction="sum"
    )
    assert losses.kl_distillation(OWN, ALL, teacher, 0.1, 2.0).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    nan = float("nan")
    part = losses.kl_distillation(OWN, ALL, torch.tensor([[3.0, nan, 2.0]]), 0.1)
    expected = losses.kl_distillation(OWN[:, [0, 2]], ALL[:, :1], torch.tensor([[3.0, 2.0]]), 0.1)
    assert part.item() == pytest.approx(expected.item(), rel=1e-5)
    own = OWN.clone().requires_grad_()
    none = losses.kl_distillation(own, ALL, torch.tensor([[nan, 1.0, 2.0]]), 0.1)
    none.sum().backward()
    assert none.item() == 0.0 and torch.isfinite(own.grad).all()


def test_a_teachers_range_and_what_it_takes_for_relevant_by_hand():
    nan = float("nan")
    teacher = torch.tensor([[4.0, -1.0, nan, 2.5], [1.0, 1.0, 1.0, 1.0], [nan, nan, nan, nan]])
    unit = losses.to_unit_range(teacher)
    assert unit[0].tolist() == pytest.approx([1.0, 0.0, nan, 0.7], nan_ok=True)
    assert unit[1].tolist() == [0.0] * 4 and unit[2].isnan().all()
    # 0.6 of the best, 4, is 2.4; what is not scored beside others is not known to be a negative.
    assert losses.below_teacher(teacher, 0.6)[0].tolist() == [True, False, False]
    assert losses.below_teacher(teacher, 0.65)[0].tolist() == [True, False, True]
    # Below 0 it is as far: the best, -1, less 0.4.
    below = torch.tensor([[-1.0, -1.3, -1.5]])
    assert losses.below_teacher(below, 0.6).tolist() == [[False, True]]
    assert losses.below_teacher(teacher, 0.6)[2].all() and losses.below_teacher(teacher, None).all()


def test_margin_mse_by_hand():
    """Margins (0.5 - 0.4) / 0.1 = 1 and 4; teacher's 2 and 1: (1 + 9) / 2."""
    teacher = torch.tensor([[3.0, 1.0, 2.0]])
    assert losses.margin_mse(OWN, ALL, teacher, 0.1).item() == pytest.approx(5.0, rel=1e-5)
    partial = torch.tensor([[3.0, 1.0, float("nan")]])
    assert losses.margin_mse(OWN, ALL, partial, 0.1).item() == pytest.approx(1.0, rel=1e-5)


def test_source_entropy_by_hand():
    source = torch.tensor([[1, 2]])
    p = 1 / (1 + math.exp(-3))
    expected = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    assert losses.source_entropy(OWN, ALL, source).item() == pytest.approx(expected, rel=1e-5)
    # Sources that score alike cannot be told apart, whatever their number; one source never can.
    alike = torch.tensor([[0.5, 0.3, 0.3, 0.3]])
    three = torch.ones(1, 3, dtype=torch.bool)
    assert losses.source_entropy(alike, three, torch.tensor([[1, 1, 2]])).item() == pytest.approx(0, abs=1e-6)
    own = alike.clone().requires_grad_()
    single = losses.source_entropy(own, three, torch.tensor([[1, 1, 1]]))
    single.sum().backward()
    assert single.item() == 0.0 and torch.isfinite(own.grad).all()


def test_gradient_of_source_entropy_is_that_of_differences():
    own = torch.tensor([[0.5, 0.4, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True]])
    source = torch.tensor([[1, 2, 1]])
    assert torch.autograd.gradcheck(lambda x: losses.source_entropy(x, mask, source), own)


def test_causalneg_by_hand():
    """Two mined and two generated, temperature 1, cosines of unit vectors in the plane."""
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scores = [0.8, 0.1, 0.5, 0.3]
    documents = torch.tensor([[s, math.sqrt(1 - s * s)] for s in scores])
    negatives = torch.tensor([[0, 1, 2, 3], [0, 1, -1, -1]])
    generated = torch.tensor([[False, False, True, True], [False, False, False, False]])
    loss = losses.causalneg(queries, documents, negatives, negatives >= 0, generated, 1.0)
    weights = [math.exp(s) for s in scores]
    mass = (weights[2] + weights[3]) / sum(weights)
    q = [w / (weights[2] + weights[3]) for w in weights[2:]]
    expected = sum(x * math.log(x) for x in q) + (mass - 2 / 4) ** 2
    assert loss.tolist() == pytest.approx([expected, 0.0], abs=1e-6)


def test_causalneg_with_one_generated_negative_balances_its_mass_alone():
    documents = torch.eye(3)
    negatives, mask = torch.tensor([[0, 1, 2]]), torch.tensor([[True, True, False]])
    generated = torch.tensor([[False, True, True]])
    loss = losses.causalneg(torch.eye(3)[:1], documents, negatives, mask, generated, 1.0)
    assert loss.item() == pytest.approx((1 / (1 + math.e) - 1 / 2) ** 2, abs=1e-6)


def test_causalneg_has_a_gradient_to_generated_negatives_alone():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    documents = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    negatives = torch.tensor([[0, 1, 2, 3], [1, 4, -1, -1], [0, -1, -1, -1]])
    generated = torch.tensor([[False, False, True, True], [False, True, False, False], [False] * 4])
    losses.causalneg(queries, documents, negatives, negatives >= 0, generated).sum().backward()
    assert queries.grad is None
    touched = documents.grad.abs().sum(dim=1) > 0
    assert touched.tolist() == [False, False, True, True, True, False]

    def of_generated(part):
        whole = torch.cat([documents.detach()[:2], part, documents.detach()[5:]])
        return losses.causalneg(queries.detach(), whole, negatives, negatives >= 0, generated)

    assert torch.autograd.gradcheck(of_generated, documents.detach()[2:5].requires_grad_())


def test_causalneg_in_the_objective_is_over_synthetic_negatives(tmp_path):
    """A document that is mined for one query and written for another has a gradient from the latter only."""
    vectors = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.1], [0.9, 0.3], [0.7, 0.7], [0.4, 0.9]]), dim=1
    )
    found = []
    for weight in (0.0, 0.5):
        args = ContrastiveArguments(
            str(tmp_path), causalneg_weight=weight, causalneg_temperature=1.0, similarity="cosine"
        )
        batch = instances(["q", "p", "a", "b"], [0], [1], [[2, 3]])
        batch.source = torch.tensor([[key_of("dense"), key_of("synthetic")]])
        found.append(ContrastiveObjective(None, args)(vectors, batch, None, slice(None))[0].item())
    generated = torch.tensor([[False, True]])
    term = losses.causalneg(
        vectors[:1], vectors, torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.bool), generated, 1.0
    )
    assert found[1] - found[0] == pytest.approx(0.5 * term.item(), abs=1e-6) and term.item() > 0


def instances(texts, query, positive, negatives, doc_ids=None, known=None, query_key=None):
    b = len(query)
    known = known or [[text_key(texts[p])] for p in positive]
    return Instances(
        query=torch.tensor(query),
        positive=torch.tensor(positive),
        negatives=torch.tensor(negatives).reshape(b, -1),
        source=torch.full_like(torch.tensor(negatives).reshape(b, -1), key_of("dense")),
        known=torch.tensor(known),
        query_key=torch.tensor(query_key or [text_key(texts[q]) for q in query]),
        text_key=torch.tensor([text_key(t) for t in texts]),
        doc_key=torch.tensor([id_key(d) if d else 0 for d in doc_ids or [None] * len(texts)]),
        teacher=torch.full((b, 1 + len(negatives[0])), float("nan")),
    )


def test_what_is_masked_in_the_batch():
    texts = ["q0", "q1", "p0", "p1", "n0", "P1 "]
    batch = instances(texts, [0, 1], [2, 3], [[4], [5]], doc_ids=[None, None, "a", "b", "c", None])
    columns = batch.columns()
    assert columns.tolist() == [2, 3, 4]  # "P1 " equals "p1", which comes first.
    keys = (columns, batch.positive, batch.negatives, batch.text_key, batch.doc_key)
    assert losses.shared_candidates(*keys, batch.known).tolist() == [
        [False, True, False],
        [True, False, True],
    ]
    known = torch.tensor([[id_key("b")], [0]])
    assert losses.shared_candidates(*keys, known).tolist() == [[False, False, False], [True, False, True]]
    assert losses.shared_candidates(*keys, known, mask_known=False)[0].tolist() == [False, True, False]


def objective(tmp_path, **options):
    return ContrastiveObjective(torch.nn.Identity(), ContrastiveArguments(str(tmp_path), **options))


def test_what_the_teacher_takes_for_relevant_is_in_its_list_and_no_negative(tmp_path):
    """CADET's loss: KL over the whole list, and a tenth of InfoNCE without what scores like the best."""
    batch = instances(["q", "p", "a", "b", "c"], [0], [1], [[2, 3, 4]])
    batch.teacher = torch.tensor([[2.0, 1.5, 0.0, 1.0]])
    vectors = torch.nn.functional.normalize(
        torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), dim=1
    )
    options = {"distillation": "kl", "student_temperature": 0.05, "teacher_temperature": 0.3}
    options |= {"contrastive_weight": 0.1, "temperature": 0.01, "teacher_mask": 0.6, "similarity": "cosine"}
    loss, _ = objective(tmp_path, **options)(vectors, batch, None, slice(None))
    own = (vectors[:1] @ vectors[1:].T).double()
    listwise = F.kl_div(
        F.log_softmax(own / 0.05, 1),
        F.log_softmax(batch.teacher.double() / 0.3, 1),
        log_target=True,
        reduction="sum",
    )
    # 1.5 is above 0.6 * 2.
    contrastive = torch.logsumexp(own[0, [0, 2, 3]] / 0.01, 0) - own[0, 0] / 0.01
    assert loss.item() == pytest.approx((listwise + 0.1 * contrastive).item(), rel=1e-4)
    # With the scores brought to 0 ... 1, the teacher's temperature is of that range.
    unit, _ = objective(tmp_path, **options, teacher_scale="unit")(vectors, batch, None, slice(None))
    half = batch.teacher.double() / 2
    listwise = F.kl_div(
        F.log_softmax(own / 0.05, 1), F.log_softmax(half / 0.3, 1), log_target=True, reduction="sum"
    )
    assert unit.item() == pytest.approx((listwise + 0.1 * contrastive).item(), rel=1e-4)
    # The guard does not count it as a negative either.
    counted, _ = objective(tmp_path, **options).above_positive(vectors, batch)
    assert (counted[0] >= 0).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrastive_weight": 0.0}, "leaves no loss"),
        ({"contrastive_weight": -1.0}, "at least 0"),
        ({"teacher_mask": 1.5}, "between 0 and 1"),
        ({"student_temperature": 0.0}, "student_temperature is 0.0; it must be above 0"),
        ({"teacher_scale": "units"}, "teacher_scale"),
    ],
)
def test_listwise_arguments_out_of_range(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ContrastiveArguments(str(tmp_path), **options)


def test_positives_of_the_same_query_elsewhere_in_the_batch_are_masked(tmp_path):
    texts = ["q", "p0", "p1", "n0", "n1"]
    batch = instances(texts, [0, 0], [1, 2], [[3], [4]])
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    rows = slice(0, 2)
    options = {"false_negative_margin": None}
    _, record = objective(tmp_path, **options)(vectors, batch, batch.columns(), rows)
    assert record.masked == 2
    _, record = objective(tmp_path, mask_known_positives=False, **options)(
        vectors, batch, batch.columns(), rows
    )
    assert record.masked == 0


def test_symmetric_against_cross_entropy(tmp_path):
    texts = [f"t{i}" for i in range(12)]
    batch = instances(texts, [0, 1, 2, 3], [4, 5, 6, 7], [[8], [9], [10], [11]])
    vectors = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    found, _ = objective(tmp_path, symmetric=True, false_negative_margin=None, temperature=0.1)(
        vectors, batch, batch.columns(), slice(0, 4)
    )
    unit = F.normalize(vectors, dim=1)
    there = F.cross_entropy(unit[:4] @ unit[4:].T / 0.1, torch.arange(4), reduction="none")
    back = F.cross_entropy(unit[4:8] @ unit[:4].T / 0.1, torch.arange(4), reduction="none")
    assert torch.allclose(found, (there + back) / 2, atol=1e-5)


def test_matryoshka_is_the_mean_over_dimensions(tmp_path):
    texts = [f"t{i}" for i in range(6)]
    batch = instances(texts, [0, 1], [2, 3], [[4], [5]])
    vectors = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    plain = objective(tmp_path)
    whole, part = (plain(v, batch, None, slice(0, 2))[0] for v in (vectors, vectors[:, :4]))
    found, _ = objective(tmp_path, matryoshka_dims=[4])(vectors, batch, None, slice(0, 2))
    assert torch.allclose(found, (whole + part) / 2, atol=1e-6)


def test_source_weight_counts_a_negative_that_often(tmp_path):
    texts = ["q", "p", "n"]
    once, twice = instances(texts, [0], [1], [[2]]), instances(texts, [0], [1], [[2, 2]])
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    expected, _ = objective(tmp_path)(vectors, twice, None, slice(0, 1))
    found, _ = objective(tmp_path, source_weights="dense=2")(vectors, once, None, slice(0, 1))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_against_sentence_transformers(tiny_model_path, tmp_path, symmetric):
    """MultipleNegativesRankingLoss with k negatives, which masks nothing."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(tiny_model_path, device="cpu").eval()
    words = [
        "ba be",
        "da",
        "fe fi fo",
        "ga go",
        "ha",
        "ka ke ki",
        "la",
        "ma mi",
        "na ne",
        "pa",
        "ra ro",
        "sa se",
    ]
    columns = [words[0:3], words[3:6], words[6:9], words[9:12]]
    features = [model.preprocess(column) for column in columns]
    directions = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    theirs = MultipleNegativesRankingLoss(
        model, scale=50.0, directions=directions, partition_mode="per_direction"
    )
    expected = theirs([dict(f) for f in features], None)
    batch = instances(words, [0, 1, 2], [3, 4, 5], [[6, 9], [7, 10], [8, 11]])
    vectors = torch.tensor(model.encode(words))
    found, _ = objective(tmp_path, symmetric=symmetric, false_negative_margin=None)(
        vectors, batch, batch.columns(), slice(0, 3)
    )
    assert found.mean().item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("in_batch", [True, False])
def test_rows_in_parts_give_the_whole(tmp_path, monkeypatch, in_batch):
    texts = [f"t{i}" for i in range(20)]
    batch = instances(texts, list(range(5)), list(range(5, 10)), [[10 + i, 15 + i] for i in range(5)])
    expected = torch.randn(20, 8, generator=torch.Generator().manual_seed(4), requires_grad=True)
    found = expected.detach().clone().requires_grad_()
    loss = objective(tmp_path, matryoshka_dims=[4], symmetric=True)
    columns = batch.columns() if in_batch else None
    whole, _ = loss(expected, batch, columns, slice(0, 5))
    whole.sum().backward()
    monkeypatch.setattr("syneg.training.objective._SCORES_AT_ONCE", 20)
    rows = loss.row_slices(batch, columns)
    parts = [loss(found, batch, columns, part)[0] for part in rows]
    assert len(parts) > 1 and torch.allclose(torch.cat(parts), whole, atol=1e-6)
    for part in parts:
        part.sum().backward()
    assert torch.allclose(found.grad, expected.grad, atol=1e-6)


def test_pack_and_unpack():
    batch = instances(["q0", "q1", "p0", "p1", "n0"], [0, 1], [2, 3], [[4], [-1]])
    found = Instances.unpack(torch.cat([batch.pack(), torch.zeros(5, dtype=torch.int64)]), batch.sizes())
    for name, value in vars(batch).items():
        assert torch.equal(torch.nan_to_num(getattr(found, name)), torch.nan_to_num(value)), name
    assert len(batch.pack()) == Instances.packed_size(batch.sizes())
