"""Arguments of the writing of queries."""

from __future__ import annotations

from dataclasses import dataclass, field

from syneg.config import split_commas
from syneg.errors import InputError, unknown
from syneg.llm.arguments import LLMArguments
from syneg.writing.query_strategy import QUERY_KINDS


@dataclass
class QueryArguments(LLMArguments):
    """For which documents an LLM writes queries, and of what kind, beside how it is asked.

    Raises:
        InputError: For a value out of its range, or a kind of query that is not known.
    """

    max_tokens: int = field(
        default=512, metadata={"help": "Tokens that a completion may have for each query in it."}
    )
    max_positive_tokens: int = field(
        default=512,
        metadata={
            "help": "Tokens (estimated, for any model) of a passage. A longer document is cut into passages "
            "of about equal length, at the ends of paragraphs, else of lines, sentences, words; a prompt has "
            "one of them."
        },
    )
    strategy: str = field(
        default="ask",
        metadata={
            "help": "The prompting strategy: ask, or FILE.py[:CLASS], a file of your own, which is run."
        },
    )
    with_reflection: bool = field(
        default=True, metadata={"help": "Whether reasoning comes before the query (ablation)."}
    )
    query_kind: str = field(
        default="search query", metadata={"help": "What queries are called in the prompt."}
    )
    document_kind: str = field(
        default="document", metadata={"help": "What the source's documents are called in the prompt."}
    )
    query_kinds: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Kinds of queries to draw from: {', '.join(QUERY_KINDS)}, or descriptions of your own "
            "of several words; none for none. All of them where there are no examples, none where there are."
        },
    )
    examples: str | None = field(
        default=None,
        metadata={
            "help": "Real queries with their documents, which those written are to be like: pairs in any "
            "form that --source takes, or a table of query and doc_id, a document of the source (or query "
            "alone). Drawn from --split of the source where not given, if it has one."
        },
    )
    num_examples: int = field(default=12, metadata={"help": "How many of them the prompt shows; 0 for none."})
    max_example_tokens: int = field(
        default=128, metadata={"help": "Tokens (estimated) of an example's document; the rest is cut."}
    )
    documents: int | None = field(
        default=None,
        metadata={"help": "How many documents queries are written for, drawn by --seed; all if null."},
    )
    queries_per_document: int | None = field(
        default=None,
        metadata={"help": "Queries asked for a document; 1 if null, or as many as were recorded for it."},
    )
    queries_per_request: int = field(
        default=1, metadata={"help": "How many of a document's queries one completion holds."}
    )
    beside: str | None = field(
        default=None,
        metadata={
            "help": "Rows with mined negatives (a folder or a Hub id): queries are written for these "
            "negatives, each one that the negative satisfies and its row's positive does not. Documents are "
            "drawn among them. Measured, they did no better than queries for documents drawn among all."
        },
    )
    positive: str = field(
        default="document",
        metadata={
            "help": "What is relevant to a query: its whole document, or the passage that was in the prompt. "
            "With passage, those of long documents take their place in the corpus, as DOCUMENT#1 and so on.",
            "choices": ["document", "passage"],
        },
    )
    min_document_words: int = field(
        default=2,
        metadata={
            "help": "Documents of fewer words (characters, in scripts without blanks) are not written for."
        },
    )
    near_duplicate: float = field(
        default=0.8,
        metadata={
            "help": "Jaccard similarity of 3-word sequences (by MinHash) from which a document repeats "
            "another and is not written for; 0 looks for equal texts only."
        },
    )
    without_test_documents: bool = field(
        default=False,
        metadata={
            "help": "Whether documents relevant to queries of other splits than --split are not written for, "
            "as a benchmark demands."
        },
    )
    with_pairs: bool = field(
        default=False,
        metadata={
            "help": "Whether the real pairs of --split stand in the written source too, to train on both. A "
            "query that is nearly a real one of its document is then not kept (gate duplicates)."
        },
    )
    test_documents: float = field(
        default=0.0,
        metadata={
            "help": "Share of the documents whose queries make a split test of written queries; with "
            "--with_pairs none of a document that a real pair has."
        },
    )

    def __post_init__(self) -> None:
        LLMArguments.__post_init__(self)
        self._at_least_one("queries_per_request", "max_example_tokens", "min_document_words")
        for name in ("documents", "queries_per_document"):
            if getattr(self, name) is not None:
                self._at_least_one(name)
        if self.num_examples < 0:
            raise InputError(f"--num_examples must be at least 0, not {self.num_examples}.")
        if not 0 <= self.near_duplicate <= 1:
            raise InputError(f"--near_duplicate {self.near_duplicate}: must be between 0 and 1.")
        if not 0 <= self.test_documents < 1:
            raise InputError(f"--test_documents {self.test_documents}: must be at least 0 and below 1.")
        if self.positive not in ("document", "passage"):
            raise unknown("value of --positive", self.positive, ("document", "passage"))
        if self.with_pairs and self.positive == "passage":
            raise InputError(
                "--with_pairs and --positive passage: real pairs are of whole documents, which are not in "
                "the corpus then. Take --positive document."
            )
        if self.query_kinds is not None:
            self.query_kinds = split_commas(self.query_kinds)
            for kind in self.query_kinds:
                if kind not in (*QUERY_KINDS, "none") and " " not in kind:
                    raise unknown("kind of query", kind, (*QUERY_KINDS, "none"))
            if "none" in self.query_kinds and len(self.query_kinds) > 1:
                raise InputError("--query_kinds: none stands alone.")

    def kinds(self, examples: bool) -> list[str]:
        """Returns the kinds of queries to draw from, by name or described; none where none are drawn.

        Args:
            examples: Whether the prompt has examples, which then say what queries are like.
        """
        if self.query_kinds is None:
            return [] if examples else list(QUERY_KINDS)
        return [kind for kind in self.query_kinds if kind != "none"]
