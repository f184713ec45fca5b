from __future__ import annotations

import pytest

from syneg.errors import InputError
from syneg.gating import patterns
from syneg.gating.arguments import GatingArguments
from syneg.gating.checks import copied_share
from syneg.rows import SYNTHETIC, make_negative, make_row
from tests.gating.gates import apply_gates

POSITIVE = (
    "Copper wires carry current with little loss because their electrons move freely through the lattice, "
    "which is why most household cables have been made of copper for more than a century."
)
GOOD = (
    "Aluminium wires are lighter than those of other metals and serve in overhead lines, where weight counts "
    "for more than the loss; joints need care since the oxide on their surface insulates."
)
OTHER = (
    "Silver coins were struck in many towns of the empire, and their weight fell from decade to decade as "
    "the mints were told to stretch the metal that the mines in the mountains still gave."
)
GERMAN = (
    "Drähte aus Aluminium sind leichter als andere und werden in Freileitungen verwendet, "
    "bei denen das Gewicht mehr zählt als der Verlust; die Verbindungen brauchen besondere Sorgfalt."
)
QUERY = "why do copper wires carry current with so little loss"


def gate(*texts: str, source: str = SYNTHETIC, rows: int = 1, **options):
    made = [
        make_row(f"q{i}" if i else "q", QUERY, "d", POSITIVE, [make_negative(text, source) for text in texts])
        for i in range(rows)
    ]
    gating = apply_gates(made, GatingArguments(**options))
    return list(gating), gating.tolls


def kinds(*texts: str, **options) -> list[str]:
    _, tolls = gate(*texts, **options)
    return [kind for (_, kind, _), count in tolls.dropped.items() for _ in range(count)]


@pytest.mark.parametrize(
    "text, kind",
    [
        ("  \n", "empty"),
        (POSITIVE.upper(), "copy of the positive"),
        (f"{QUERY}?".rstrip("?"), "copy of the query"),
        (f"{POSITIVE} So it was.", "copy of the positive"),
        ("Too short a text.", "too short"),
        (" ".join([GOOD, OTHER, GOOD.upper(), OTHER.upper()]), "too long"),
        (GERMAN, "wrong language"),
        (f"As an AI language model, I find that {GOOD}", "refusal"),
        (f"I'm sorry, but I cannot write this. {GOOD}", "refusal"),
        (f"Here is a hard negative document for the query: {GOOD}", "chatter"),
        (f"Sure! {GOOD}", "chatter"),
        (f"{GOOD} This document does not answer the query.", "chatter"),
        (f'{{"reasoning": "x", "hard_negative_document": "{GOOD}"}}', "leaked format"),
        (f"```\n{GOOD}\n```", "leaked format"),
        (f"<think>hm</think> {GOOD}", "leaked format"),
        (f"{GOOD}<|im_end|>", "leaked format"),
        (f"Reasoning: keep the topic. {GOOD}", "leaked format"),
    ],
)
def test_each_fault_is_found_and_named(text: str, kind: str) -> None:
    (out,), tolls = gate(text)
    row, (dropped,) = out
    assert row["negatives"] == [] and tolls.emptied == 1
    assert kinds(text) == [kind]
    assert dropped["gate"] == "checks" and dropped["reason"].endswith(".")
    assert dropped["negative"]["text"] == text and dropped["query_id"] == "q"


def test_a_good_one_stays() -> None:
    assert kinds(GOOD, OTHER) == []


@pytest.mark.parametrize("text", ["As an aid to navigation, the lamp shines.", "Sure-footed goats climb."])
def test_signs_do_not_fire_on_ordinary_words(text: str) -> None:
    assert patterns.refusal(text) is patterns.chatter(text) is patterns.leaked_format(text) is None


def test_what_the_positive_has_too_is_no_fault() -> None:
    row = make_row("q", QUERY, "d", f"```\n{POSITIVE}\n```", [make_negative(f"```\n{GOOD}\n```", SYNTHETIC)])
    gating = apply_gates([row], GatingArguments())
    assert len(next(iter(gating))[0]["negatives"]) == 1


def test_mined_negatives_are_held_to_their_text_only() -> None:
    assert kinds("Short.", GERMAN, f"Sure! {GOOD}", source="bm25", rows=2) == []
    assert kinds("", POSITIVE, GOOD, GOOD, source="bm25") == [
        "empty",
        "copy of the positive",
        "twice in its row",
    ]


def test_duplicates_across_rows() -> None:
    near = GOOD.replace("overhead", "aerial")
    rows = [
        make_row(f"q{i}", QUERY, "d", POSITIVE, [make_negative(text, SYNTHETIC)])
        for i, text in enumerate([GOOD, OTHER, GOOD.upper(), near])
    ]
    gating = apply_gates(rows, GatingArguments(near_duplicate=0.6))
    out = list(gating)
    assert [len(row["negatives"]) for row, _ in out] == [1, 1, 0, 0]
    assert "number 1 (query q0), similarity 1.00" in out[2][1][0]["reason"]
    assert {kind for _, kind, _ in gating.tolls.dropped} == {"duplicate", "near-duplicate"}
    exact = apply_gates(rows, GatingArguments(near_duplicate=0))
    assert [len(row["negatives"]) for row, _ in exact] == [1, 1, 0, 1]


def test_rows_of_one_query_may_share_a_negative() -> None:
    rows = [make_row("q", QUERY, d, POSITIVE, [make_negative(GOOD, SYNTHETIC)]) for d in ("d", "e")]
    assert [len(row["negatives"]) for row, _ in apply_gates(rows, GatingArguments())] == [1, 1]


def test_a_dropped_text_is_no_reason_to_drop_another() -> None:
    # The first is too short for its positive, the second, the same, is not for its own.
    rows = [
        make_row("a", QUERY, "d", " ".join([OTHER] * 5), [make_negative(GOOD, SYNTHETIC)]),
        make_row("b", QUERY, "d", POSITIVE, [make_negative(GOOD, SYNTHETIC)]),
    ]
    assert [len(row["negatives"]) for row, _ in apply_gates(rows, GatingArguments())] == [0, 1]


def test_copied_share() -> None:
    assert copied_share("a b c d e f", "x a b c d e") == 0.5
    assert copied_share("a b", "b a") == 0.0
    assert copied_share("", "a") == 0.0


def test_tolls_add_up_and_read_well() -> None:
    _, tolls = gate(GOOD, "", "Too short.", rows=2)
    counts = tolls.to_dict()
    assert counts["seen"] == {"synthetic": 6} and counts["kept"] == {"synthetic": 1}
    assert counts["dropped"]["checks"]["duplicate"] == {"synthetic": 1}
    assert sum(sum(by.values()) for by in counts["dropped"]["checks"].values()) == 5
    assert "kept 1 of 6 negatives (16.7%) in 2 rows" in tolls.lines()[0]


def test_rows_stream() -> None:
    def rows():
        yield make_row("q", QUERY, "d", POSITIVE, [make_negative(GOOD, SYNTHETIC)])
        raise AssertionError("read ahead")

    assert next(iter(apply_gates(rows(), GatingArguments())))[0]["query_id"] == "q"


def test_bad_values_are_named() -> None:
    with pytest.raises(InputError, match=r"unknown gate 'check'. Did you mean 'checks'"):
        GatingArguments(gates="check")
    with pytest.raises(InputError, match="needs --teacher"):
        apply_gates([], GatingArguments(gates="checks,teacher"))
    with pytest.raises(InputError, match="min_length_ratio"):
        GatingArguments(min_length_ratio=4)
    with pytest.raises(InputError, match=r"max_copied 1\.5"):
        GatingArguments(max_copied=1.5)
    with pytest.raises(InputError, match="language 'klingon'"):
        apply_gates([], GatingArguments(language="klingon"))
