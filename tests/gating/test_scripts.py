"""The checks where texts have no blanks between words, or come in another form; the positives of a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syneg.commands.gate import main as gate_command
from syneg.gating.arguments import GatingArguments
from syneg.gating.audit import audit
from syneg.gating.checks import Checks, copied_share
from syneg.gating.features import SURFACE_FEATURES, surface_features
from syneg.gating.gate import Tolls
from syneg.gating.known import KnownPositives
from syneg.rows import SYNTHETIC, make_negative, make_row
from syneg.stages import Draft

CHINESE = "水壶里的水垢可以用白醋煮开后冲洗干净，然后再用清水煮一次，倒掉以后就可以正常使用了。"
ANOTHER = "自行车的链条用久了会被拉长，骑起来容易掉链子，这时候应当到修车铺去更换一根新的链条。"
JAPANESE = "やかんの水垢は酢を入れて沸かすと落ちます。そのあと何度も水ですすいでから使ってください。"
KOREAN = "주전자의 물때는 식초를 넣고 끓이면 쉽게 없어집니다. 그 다음에 맑은 물로 여러 번 헹구어 주세요."
THAI = "คราบตะกรันในกาน้ำสามารถกำจัดได้โดยการต้มน้ำส้มสายชูแล้วล้างออกด้วยน้ำสะอาดอีกครั้งหนึ่ง"
LAO = "ຄາບຫີນປູນໃນກາຕົ້ມນ້ຳສາມາດກຳຈັດໄດ້ໂດຍການຕົ້ມນ້ຳສົ້ມແລ້ວລ້າງອອກດ້ວຍນ້ຳສະອາດອີກເທື່ອໜຶ່ງ"
HINDI = "केतली में जमी हुई चूने की परत सिरका डालकर उबालने से निकल जाती है और फिर साफ पानी से धोना चाहिए"
ARABIC = "يُمكِن إزالة الترسّبات الكلسية من الغلّاية بغلي الخلّ فيها ثم شطفها بالماء النظيف عدة مرات"


def kinds(negative: str, positive: str, source: str = SYNTHETIC, **options) -> list[str]:
    row = make_row("q", "?", "d", positive, [make_negative(negative, source)])
    tolls = Tolls()
    Checks(GatingArguments(**options)).apply([Draft(row)], tolls)
    return [kind for (_, kind, _), count in tolls.dropped.items() for _ in range(count)]


@pytest.mark.parametrize("positive", [CHINESE, JAPANESE, THAI, LAO])
def test_lengths_and_copies_by_characters(positive: str) -> None:
    half = positive[: len(positive) // 2]
    blanks = "".join(f" {character}" if character.isalpha() else character for character in positive)
    assert kinds(positive[: len(positive) // 8], positive) == ["too short"]
    assert kinds(positive * 4, positive) == ["too long"]
    # No word of it stands between blanks in both.
    assert kinds(f"{positive}{half[:3]}", positive) == ["copy of the positive"]
    assert kinds(f"{blanks} 3", positive) == ["copy of the positive"]
    assert kinds(blanks, positive, "bm25") == ["copy of the positive"]


def test_another_text_of_the_same_script_stays() -> None:
    assert kinds(ANOTHER, CHINESE) == kinds(CHINESE, ANOTHER) == []
    assert copied_share(ANOTHER, CHINESE) < 0.1


@pytest.mark.parametrize(
    "positive, negative, found",
    [
        (CHINESE, JAPANESE, "ja"),
        (CHINESE, THAI, "th"),
        (JAPANESE, ANOTHER, "zh"),
        (THAI, LAO, "lo"),
        (LAO, THAI, "th"),
    ],
)
def test_languages_are_told_where_there_are_characters_enough(
    positive: str, negative: str, found: str
) -> None:
    assert kinds(negative, positive) == ["wrong language"]
    assert kinds(negative, positive, language=found) == []
    # 19 characters are too few to tell.
    assert kinds(negative[:19], positive, min_length_ratio=0) == []


@pytest.mark.parametrize("positive", [KOREAN, HINDI, ARABIC])
def test_scripts_with_blanks_go_by_words(positive: str) -> None:
    words = positive.split()
    assert kinds(" ".join(words[:3]), positive) == ["too short"]
    assert kinds(f"{positive} {words[0]}", positive) == ["copy of the positive"]
    assert kinds(" ".join(words[::-1]), positive) == []


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, LAO, KOREAN])
def test_near_duplicates_in_every_script(text: str) -> None:
    rows = [
        make_row(f"q{i}", "?", "d", text[::-1], [make_negative(negative, SYNTHETIC)])
        for i, negative in enumerate([text, f"{text}{text[0]}", ANOTHER if text != ANOTHER else CHINESE])
    ]
    drafts, tolls = [Draft(row) for row in rows], Tolls()
    Checks(GatingArguments(language="any", max_copied=1)).apply(drafts, tolls)
    assert [len(draft.row["negatives"]) for draft in drafts] == [1, 0, 1]
    assert [kind for _, kind, _ in tolls.dropped] == ["near-duplicate"]


def test_copies_in_another_form_are_copies() -> None:
    positive = "Le café près de la forêt ouvre à midi, été comme hiver, et ne ferme qu'à la nuit tombée"
    import unicodedata

    for text in (
        unicodedata.normalize("NFD", positive),
        positive.replace(" ", " \u200b"),
        f"\ufeff{positive}",
    ):
        assert kinds(text, positive, "dense") == ["copy of the positive"]
        assert kinds(f"{text} encore", positive) == ["copy of the positive"]
    assert kinds("\ud83d" + CHINESE, ANOTHER) == []  # read, though it has no UTF-8


def test_a_positive_of_the_same_query_is_no_negative() -> None:
    known = KnownPositives(
        [
            ("remove  Limescale", "Boil vinegar.", "d0"),
            ("Remove limescale", "Take lemon juice.", "d1"),
            ("tune a piano", "Twice a year.", None),
        ]
    )
    assert len(known) == 5
    assert known.is_positive("remove limescale", "take LEMON juice.")
    assert known.is_positive("remove limescale\u200b", "another text of the same document", "d1")
    assert known.is_positive("Tune a piano", "twice a year.", "d9")
    assert not known.is_positive("tune a piano", "Take lemon juice.", "d1")
    assert not known.is_positive("remove limescale", "Twice a year.", None)
    assert not KnownPositives([]).is_positive("", "", "")

    texts = {"take lemon juice.": SYNTHETIC, "Take other juice.": "bm25", "Replace the cord.": SYNTHETIC}
    row = make_row("q0", "remove limescale", "d0", "Boil vinegar.")
    row["negatives"] = [
        make_negative(text, source, doc_id="d1" if source == "bm25" else None)
        for text, source in texts.items()
    ]
    draft, tolls = Draft(row), Tolls()
    Checks(GatingArguments(), known).apply([draft], tolls)
    assert [n["text"] for n in draft.row["negatives"]] == ["Replace the cord."]
    assert set(tolls.dropped) == {
        ("checks", "positive of the same query", source) for source in (SYNTHETIC, "bm25")
    }
    # Without it the row's own positive is all that is known.
    draft = Draft(row)
    Checks(GatingArguments()).apply([draft], Tolls())
    assert len(draft.row["negatives"]) == 3


def test_known_positives_hold_many_in_little() -> None:
    known = KnownPositives((f"query {i % 5000}", f"text {i}", f"d{i}") for i in range(200_000))
    assert len(known) == 400_000 and known._keys.itemsize == 8
    assert all(known.is_positive(f"query {i % 5000}", f"text {i}") for i in range(0, 200_000, 997))
    assert not any(known.is_positive(f"query {i % 5000}", f"text {i + 1}") for i in range(0, 200_000, 997))


def test_the_gate_of_a_finished_data_set_knows_every_rows_positive(tmp_path: Path, monkeypatch) -> None:
    from datasets import Dataset, load_dataset

    from syneg.rows import FEATURES as COLUMNS

    monkeypatch.setenv("SYNEG_CACHE", str(tmp_path / "cache"))
    documents = [
        "Boil vinegar in the kettle.",
        "Take lemon juice to the kettle.",
        "Replace the kettle's cord.",
    ]
    rows = [
        make_row(
            f"q{i}",
            query,
            f"d{i}",
            documents[i],
            [make_negative(documents[j], "bm25", doc_id=f"d{j}") for j in (1 - i, 2)],
        )
        for i, query in enumerate(["remove limescale", " Remove LIMESCALE"])
    ]
    (tmp_path / "rows").mkdir()
    Dataset.from_list(rows, features=COLUMNS).to_parquet(str(tmp_path / "rows" / "train.parquet"))
    output = str(tmp_path / "gated")
    gate_command(["--dataset", str(tmp_path / "rows"), "--output", output])
    assert [[n["doc_id"] for n in row["negatives"]] for row in load_dataset(output, split="train")] == [
        ["d2"]
    ] * 2
    dropped = load_dataset(output, "dropped", split="train")
    assert set(dropped["reason"]) == {"It is a positive of a query of the same text."}


def test_features_and_the_audit_see_words_in_every_script() -> None:
    found = dict(zip(SURFACE_FEATURES, surface_features([CHINESE]).T.tolist(), strict=True))
    assert found["words"] == [len(CHINESE.replace("，", "").replace("。", ""))]
    assert found["letters in a word"] == [1.0] and found["ends with punctuation"] == [1.0]
    assert found["commas per 100 characters"] == pytest.approx([100 * 2 / len(CHINESE)])
    hindi = dict(zip(SURFACE_FEATURES, surface_features([HINDI]).T.tolist(), strict=True))
    assert hindi["words"] == [len(HINDI.split())]

    rng = np.random.default_rng(0)
    letters, strange = list(CHINESE[:20]), list(ANOTHER[:20])
    rows = [
        make_row(
            f"q{i}",
            "?",
            "d",
            CHINESE,
            [
                make_negative("".join(rng.permutation(letters)) + "水壶水壶", SYNTHETIC),
                make_negative("".join(rng.permutation(strange)) + "链条链条", "bm25"),
            ],
        )
        for i in range(12)
    ]
    report = audit(rows)
    assert report.length["synthetic"][2] > 20 and report.vocabulary["mined"] >= 10
    assert report.by["words"].auc > 0.9 and "水壶" in report.synthetic_words and "链条" in report.mined_words
