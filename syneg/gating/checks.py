"""The gate `checks`: what can be told without a model.

For every negative: empty, the text of the positive or of the query, a positive of a query of the same
text, twice in its row. For synthetic ones besides: refusal, chatter, leaked format, length against the
positive, copied from the positive or the query, wrong language, repeated across the data set (mined ones
repeat by nature: a document may be near to many queries). Lengths and copies are told by words, and by
characters in scripts without blanks (see `text.units`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from syneg.errors import InputError
from syneg.gating import patterns
from syneg.gating.arguments import GatingArguments
from syneg.gating.duplicates import Duplicates
from syneg.gating.gate import Tolls
from syneg.gating.known import KnownPositives
from syneg.rows import SYNTHETIC, Negative, Row, make_dropped
from syneg.stages import Draft
from syneg.text import normal_text, units

_COPIED_WORDS = 5
_LANGUAGE_WORDS = 20
"""Below this many words (or characters) the language cannot be told reliably."""
_LANGUAGE_CONFIDENCE = 0.9
_VARIETIES = {"zh": "zh", "wuu": "zh", "yue": "zh", "ar": "ar", "ary": "ar", "arz": "ar"}

Finding = tuple[str, str]
"""Kind of reason (counted) and the reason itself (kept with what is dropped)."""


class Checks:
    """Checks negatives one by one; remembers the synthetic ones it kept, to know a duplicate.

    Args:
        args: The bounds.
        known: The positives of all queries, of whatever id; without it only a row's own positive is known.

    Raises:
        InputError: For a language that is not known.
    """

    name = "checks"
    group = 1

    def __init__(self, args: GatingArguments, known: KnownPositives | None = None) -> None:
        self.args = args
        self.known = known
        self._duplicates = Duplicates(args.near_duplicate)
        self._count = 0
        if args.language not in ("any", "positive") and args.language not in _identifier().labels:
            raise InputError(
                f"--language {args.language!r}: not a known code; give an ISO 639-1 code such as en, "
                "or positive, or any."
            )

    def apply(self, drafts: list[Draft], tolls: Tolls) -> None:
        """Applies the checks; the first that a negative fails is its reason."""
        for draft in drafts:
            self._apply(draft, tolls)

    def close(self) -> None:
        """Forgets the texts that it remembers."""
        self._duplicates.close()

    def _apply(self, draft: Draft, tolls: Tolls) -> None:
        row = draft.row
        kept: list[Negative] = []
        seen: set[str] = set()
        # What a negative may not be, and how that is called; of a row's texts each is compared with many.
        barred = {
            normal_text(row["query"]): ("copy of the query", "It is the query's text."),
            normal_text(row["positive"]): ("copy of the positive", "It is the positive's text."),
            "": ("empty", "The text is empty."),
        }
        for negative in row["negatives"]:
            text = normal_text(negative["text"])
            finding = barred.get(text) or self._find(row, negative, text in seen)
            if finding is None:
                kept.append(negative)
                seen.add(text)
                if negative["source"] == SYNTHETIC:
                    self._count += 1
                    where = f"number {self._count} (query {row['query_id']})"
                    self._duplicates.add(negative["text"], where)
            else:
                tolls.dropped[self.name, finding[0], negative["source"]] += 1
                draft.dropped.append(make_dropped(row, negative, self.name, finding[1]))
        draft.row = {**row, "negatives": kept}

    def _find(self, row: Row, negative: Negative, is_repeated: bool) -> Finding | None:
        if self.known and self.known.is_positive(row["query"], negative["text"], negative["doc_id"]):
            return "positive of the same query", "It is a positive of a query of the same text."
        if is_repeated:
            return "twice in its row", "The same text is among the row's negatives already."
        if negative["source"] != SYNTHETIC:
            return None
        return next((finding for finding in self._synthetic(row, negative["text"]) if finding), None)

    def _synthetic(self, row: Row, text: str) -> Iterator[Finding | None]:
        """Yields the findings on a synthetic negative, cheap ones first."""
        signs: tuple[tuple[str, str, Callable[[str], str | None]], ...] = (
            ("refusal", "It reads as a refusal", patterns.refusal),
            ("leaked format", "It holds what belongs to the answer's format", patterns.leaked_format),
            ("chatter", "It speaks about the document", patterns.chatter),
        )
        for kind, reason, find in signs:
            found = find(text)
            # What the positive has too is the data set's own style.
            if found and not find(row["positive"]):
                yield kind, f"{reason}: {found}."
        yield self._length(row, text)
        yield self._copy(row, text)
        yield self._language(row, text)
        duplicate = self._duplicates.find(text)
        # A query with several positives, one of them relabelled perhaps, has a text in each of its rows.
        if duplicate and not (duplicate[1] == 1 and duplicate[0].endswith(f" (query {row['query_id']})")):
            name, similarity = duplicate
            kind = "duplicate" if similarity == 1 else "near-duplicate"
            yield kind, f"It repeats synthetic negative {name}, similarity {similarity:.2f}."

    def _length(self, row: Row, text: str) -> Finding | None:
        length, positive = len(units(text)), max(1, len(units(row["positive"])))
        ratio = length / positive
        if ratio < self.args.min_length_ratio:
            return "too short", f"{length} words, {ratio:.2f} of the positive's {positive}."
        if ratio > self.args.max_length_ratio:
            return "too long", f"{length} words, {ratio:.2f} of the positive's {positive}."
        return None

    def _copy(self, row: Row, text: str) -> Finding | None:
        for kind in ("positive", "query"):
            share = copied_share(text, row[kind])  # type: ignore[literal-required]
            if share > self.args.max_copied:
                return (
                    f"copy of the {kind}",
                    f"{share:.0%} of its {_COPIED_WORDS}-word sequences are in the {kind}.",
                )
        return None

    def _language(self, row: Row, text: str) -> Finding | None:
        expected = _VARIETIES.get(self.args.language, self.args.language)
        if expected == "any" or len(units(text)) < _LANGUAGE_WORDS:
            return None
        if expected == "positive":
            expected, sure = language_of(row["positive"])
            if len(units(row["positive"])) < _LANGUAGE_WORDS or sure < _LANGUAGE_CONFIDENCE:
                return None
        found, sure = language_of(text)
        if found == expected or sure < _LANGUAGE_CONFIDENCE:
            return None
        return "wrong language", f"It is in {found!r}, expected {expected!r}."


def copied_share(text: str, original: str, words: int = _COPIED_WORDS) -> float:
    """Returns which share of the text's sequences of `words` words stand in the original too.

    Words are `text.units`, in the form in which texts are compared. A text of fewer words is one sequence.
    """
    own, others = _sequences(text, words), _sequences(original, words)
    return len(own & others) / len(own) if own else 0.0


def _sequences(text: str, words: int) -> set[tuple[str, ...]]:
    parts = units(normal_text(text))
    return {tuple(parts[i : i + words]) for i in range(max(1, len(parts) - words + 1))} if parts else set()


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=4096)
def language_of(text: str) -> tuple[str, float]:
    """Returns the ISO code of a text's language, and how sure that is (0 to 1).

    Varieties that are written nearly alike are one language: each alone would never be sure.
    """
    # Half a surrogate pair has no UTF-8, which the identifier reads.
    text = text.encode("utf-8", "replace").decode("utf-8")
    language, sure = _identifier().classify(text)
    if (whole := _VARIETIES.get(language)) is None:
        return language, sure
    return whole, float(
        sum(share for code, share in _identifier().rank(text) if _VARIETIES.get(code) == whole)
    )
