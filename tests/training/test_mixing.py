import random
from collections import Counter

import pytest

from syneg.errors import InputError
from syneg.training.mixing import Candidate, Mixture


def candidates(**counts):
    return [Candidate(f"{source} {i}", source, hardness=i) for source, n in counts.items() for i in range(n)]


def sources(draw):
    return Counter(negative.source for negative in draw.negatives)


def test_counts_hold_for_every_instance():
    mixture = Mixture({"synthetic": 1, "dense": 2})
    for i in range(20):
        draw = mixture.draw(candidates(synthetic=3, dense=5), seed=0, epoch=0, identity=str(i))
        assert sources(draw) == {"synthetic": 1, "dense": 2}
        assert not draw.fallback and not draw.missing


def test_draw_depends_on_seed_epoch_and_identity_alone():
    mixture = Mixture({"synthetic": 1, "dense": 2})
    rows = {str(i): candidates(synthetic=4, dense=9) for i in range(30)}
    first = {i: mixture.draw(c, seed=1, epoch=2, identity=i).negatives for i, c in rows.items()}
    random.seed(99)
    order = list(rows)
    random.shuffle(order)
    again = {i: mixture.draw(rows[i], seed=1, epoch=2, identity=i).negatives for i in order}
    assert first == again
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert first != {i: mixture.draw(c, identity=i, **other).negatives for i, c in rows.items()}
    assert len({tuple(n.text for n in draw) for draw in first.values()}) > 10


def test_positive_or_equal_text_is_never_drawn():
    rows = [
        Candidate("The  Positive\ntext", "dense"),
        Candidate("the query", "dense"),
        Candidate("ok", "dense"),
    ]
    for seed in range(20):
        draw = Mixture({"dense": 2}).draw(
            rows, seed=seed, epoch=0, identity="a", forbidden={"the positive text", "The query"}
        )
        assert [n.text for n in draw.negatives] == ["ok"]
        assert draw.missing == 1


def test_equal_texts_are_drawn_once():
    rows = [Candidate("same", "dense"), Candidate("Same", "bm25"), Candidate("other", "bm25")]
    draw = Mixture({"dense": 2, "bm25": 2}).draw(rows, seed=0, epoch=0, identity="a")
    assert sorted(n.text for n in draw.negatives) == ["other", "same"]


def test_shortage_falls_back_on_listed_sources_first_and_is_counted():
    rows = candidates(random=3, bm25=2, dense=1)
    draw = Mixture({"synthetic": 2, "dense": 1, "bm25": 1}).draw(rows, seed=0, epoch=0, identity="a")
    assert sources(draw) == {"dense": 1, "bm25": 2, "random": 1}
    assert draw.fallback == {"synthetic": 2}
    assert draw.missing == 0


def test_missing_is_counted():
    draw = Mixture({"synthetic": 2, "dense": 2}).draw(candidates(dense=3), seed=0, epoch=0, identity="a")
    assert (len(draw.negatives), draw.missing, draw.fallback) == (3, 1, {"synthetic": 1})


def test_ratio_is_exact_on_average_and_within_one_for_each():
    mixture = Mixture.ratio({"synthetic": 0.7, "dense": 1}, total=4)
    draws = [
        mixture.draw(candidates(synthetic=6, dense=6), seed=0, epoch=0, identity=str(i)) for i in range(4000)
    ]
    counts = [sources(draw)["synthetic"] for draw in draws]
    assert all(len(draw.negatives) == 4 for draw in draws)
    assert set(counts) == {1, 2}
    assert sum(counts) / len(counts) == pytest.approx(4 * 0.7 / 1.7, abs=0.03)


def test_direct_mix_takes_one_source_a_row_and_keeps_the_shares():
    mixture = Mixture.direct({"synthetic": 1, "dense": 2}, total=3)
    draws = [
        sources(mixture.draw(candidates(synthetic=3, dense=3), seed=0, epoch=0, identity=str(i)))
        for i in range(3000)
    ]
    assert all(len(draw) == 1 and draw.total() == 3 for draw in draws)
    assert sum("synthetic" in draw for draw in draws) / len(draws) == pytest.approx(1 / 3, abs=0.03)


def test_curriculum_moves_from_easy_to_hard():
    mixture = Mixture({"dense": 3}, order="easy_to_hard")

    def mean_hardness(epoch):
        draws = [
            mixture.draw(candidates(dense=20), seed=0, epoch=epoch, identity=str(i), num_epochs=3)
            for i in range(50)
        ]
        return sum(n.hardness for draw in draws for n in draw.negatives) / 150

    assert mean_hardness(0) < 5 < mean_hardness(1) < 14 < mean_hardness(2)


def test_synthetic_share_rises_with_the_total_unchanged():
    mixture = Mixture({"synthetic": 1, "dense": 3}, rise=3)

    def share(epoch):
        draws = [
            mixture.draw(candidates(synthetic=9, dense=9), seed=0, epoch=epoch, identity=str(i), num_epochs=3)
            for i in range(2000)
        ]
        assert all(len(draw.negatives) == 4 for draw in draws)
        return sum(sources(draw)["synthetic"] for draw in draws) / 2000

    assert share(0) == pytest.approx(1, abs=0.05)
    assert share(2) == pytest.approx(4 * 3 / 6, abs=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "synthetic=1,dense=2",
        "none",
        "all",
        "ratio:synthetic=0.7,dense=1,total=4",
        "direct:synthetic=1,dense=2,total=3",
    ],
)
def test_parse_round_trip(text):
    assert str(Mixture.parse(text)) == text
    assert Mixture.parse(str(Mixture.parse(text))) == Mixture.parse(text)


def test_pure_and_none():
    assert Mixture.parse("pure:synthetic=3") == Mixture.pure("synthetic", 3)
    assert not Mixture.parse("none").asks_for_negatives
    assert Mixture({}).draw(candidates(dense=3), seed=0, epoch=0, identity="a").negatives == []


@pytest.mark.parametrize(
    "text",
    [
        "synthetic",
        "synthetic=x",
        "synthetic=-1",
        "ratoi:synthetic=1,total=3",
        "ratio:synthetic=1",
        "a=1,a=2",
        "a=0.5",
    ],
)
def test_bad_mixture_is_an_input_error_in_one_line(text):
    with pytest.raises(InputError) as error:
        Mixture.parse(text)
    assert "\n" not in str(error.value)
