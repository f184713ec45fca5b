from __future__ import annotations

import random
import re
import unicodedata

import bm25s
import pytest

from syneg.text import letter_runs, normal_text, search_form, text_keys, units, words
from tests.stand_in import tiny_source

SPACED = (
    "The quick brown café – naïve «ça» l'été, ½ of x² m_n don’t ‘quote’ A b 42 3.14 Straße ÆØÅ łódź\n"
    "Ο Όμηρος έγραψε. Привет, мир! Ёж и йод. Đặng Thái Sơn · €5 ≤ 7 — déjà-vu… 한"
)


def test_words_of_spaced_scripts_are_those_of_bm25s() -> None:
    spaced = SPACED.removesuffix("한")
    texts = [*tiny_source().documents(), spaced, spaced.upper(), "", " \n", "a", "__ _x x_"]
    assert [words(text) for text in texts] == bm25s.tokenize(
        texts, stopwords=[], return_ids=False, show_progress=False
    )
    # A text that must go through the long way because of one character has the same words besides.
    assert words(SPACED)[:-1] == words(spaced)
    for text in (*texts, SPACED):
        assert units(text) == text.split()
        assert letter_runs(text) == re.findall(r"\w+", text)


@pytest.mark.parametrize(
    "text, found",
    [
        ("水壶的水垢。", "水壶 壶的 的水 水垢"),
        ("茶、GPT4模型", "茶 gpt4 模型"),
        ("やかんのコード", "やか かん んの のコ コー ード"),
        ("ｶﾞｽ ＡＢＣ", "ガス abc"),
        ("주전자의 물때", "주전 전자 자의 물때"),
        ("हिन्दी में क्या", "हिन्दी में क्या"),
        ("தமிழ் தீ", "தமிழ் தீ"),
        ("বাংলা ভাষা", "বাংলা ভাষা"),
        ("بِسْمِ اللَّهِ كـتـاب", "بسم الله كتاب"),
        ("שָׁלוֹם עולם", "שלום עולם"),
        ("น้ำตก", "น้ำ ำต ตก"),
        ("ລາວ", "ລາ າວ"),
        ("ភាសា", "ភាសា"),
        ("မြန်မာ", "မြန် န်မာ"),
        ("አማርኛ ቋንቋ", "አማርኛ ቋንቋ"),
        ("ශ්\u200dරී ලංකා", "ශ්රී ලංකා"),
        ("می\u200cخواهم", "می خواهم"),
        ("cafe\u0301 co\u00adop \u202bword\u202c", "café coop word"),
        ("İstanbul i\u0307stanbul", "istanbul istanbul"),
        ("👍🏽 ❤️ 1️⃣ …。！", ""),
        ("\ud83d cut", "cut"),
    ],
)
def test_words_of_every_script(text: str, found: str) -> None:
    # The tests' own notation may come in either form.
    assert words(text) == unicodedata.normalize("NFC", found).split()
    assert words(unicodedata.normalize("NFD", text)) == words(text)


@pytest.mark.parametrize(
    "text, count",
    [
        ("水壶里的水垢可以用白醋煮开后冲洗干净。", 18),
        ("用 软布 擦拭 水壶 外壳，不要 浸水。", 13),
        ("用 GPT4 的模型 ， 好 !", 6),
        ("น้ำตก", 4),
        ("주전자의 물때 !", 3),
        ("हिन्दी में क्या है ?", 5),
        ("مرحبا بالعالم", 2),
        ("  \u200b。", 1),
        ("", 0),
    ],
)
def test_lengths_are_words_or_characters(text: str, count: int) -> None:
    assert len(units(text)) == count


@pytest.mark.parametrize(
    "one, other",
    [
        ("Le  Café\n", "le cafe\u0301"),
        ("ＡＢＣ，１", "abc,1"),
        ("ｶﾞｽ", "ガス"),
        ("用 软布 GPT 擦拭", "用软布GPT擦拭"),
        ("İstanbul", "istanbul"),
        ("co\u00adop\u200b \u202bx\u202c\ufeff", "coop x"),
        ("❤️", "❤"),
        ("Straße", "STRASSE"),
        ("\ud83d x", "\ufffd X"),
        ("\u200b\ufeff", ""),
    ],
)
def test_what_a_reader_cannot_tell_apart_is_equal(one: str, other: str) -> None:
    assert normal_text(one) == normal_text(other)
    assert text_keys([one]) == text_keys([other])


@pytest.mark.parametrize(
    "one, other",
    [("cafe", "café"), ("H₂O", "H2O"), ("は", "ば"), ("कि", "की"), ("a b", "ab"), ("가 나", "가나")],
)
def test_what_a_reader_can_tell_apart_is_not(one: str, other: str) -> None:
    assert normal_text(one) != normal_text(other)


def test_forms_are_final_and_hold_for_any_text() -> None:
    rng = random.Random(0)
    ranges = [
        (0x20, 0x7F),
        (0x80, 0x600),
        (0x600, 0x1200),
        (0x2000, 0x3400),
        (0xA000, 0x11000),
        (0x1F300, 0x1FA00),
    ]
    for _ in range(3000):
        text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(12)))
        form = normal_text(text)
        assert normal_text(form) == form, ascii(text)
        assert search_form(search_form(text)) == search_form(text), ascii(text)
        assert all(words(text)) and all(units(text)) and all(letter_runs(text)), ascii(text)


def test_long_runs_take_time_by_their_length_only() -> None:
    # Minutes, if each place of a run were tried as its beginning.
    for text in (
        "。" * 300_000 + "水",
        "-" * 300_000 + "水",
        "水" * 300_000,
        "x" * 300_000 + "é水",
        "\u0301" * 100_000,
    ):
        words(text), units(text), letter_runs(text), normal_text(text)
