"""Arguments of the gating stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from syneg.config import split_commas
from syneg.errors import InputError, unknown
from syneg.resources import is_class_spec

GATES = ("checks", "teacher", "judge")
DEFAULT_GATES = ("checks", "teacher")


@dataclass
class GatingArguments:
    """Which negatives are kept.

    Raises:
        InputError: For an unknown gate or a value out of its range.
    """

    gates: list[str] | None = field(
        default=None,
        metadata={
            "help": "Gates, in order: checks, teacher, judge, or FILE.py:CLASS, one of your own. If not "
            "given: checks, and teacher where there is a model (--teacher, or the dense miner's), else a "
            "line on what is not checked."
        },
    )
    grade_only: bool = field(
        default=False,
        metadata={
            "help": "For listwise training: the gates teacher and judge grade in place of dropping, in "
            "teacher_score and positive_teacher_score. The judge's grades are yes 2, partly 1, no 0, and 2 "
            "for the positive, and what has no verdict goes (--judge_unclear). Of both gates the later "
            "one's stand."
        },
    )
    min_length_ratio: float = field(
        default=0.25, metadata={"help": "Fewest words of a synthetic negative, as a share of the positive's."}
    )
    max_length_ratio: float = field(
        default=3.0, metadata={"help": "Most words of a synthetic negative, as a share of the positive's."}
    )
    max_copied: float = field(
        default=0.8,
        metadata={
            "help": "Largest share of a synthetic negative's 5-word sequences that the positive has too."
        },
    )
    near_duplicate: float = field(
        default=0.8,
        metadata={
            "help": "Jaccard similarity of 3-word sequences (by MinHash) from which two synthetic negatives "
            "are duplicates; 0 looks for equal texts only."
        },
    )
    language: str = field(
        default="positive",
        metadata={
            "help": "Language of synthetic negatives: an ISO code such as en, positive for the positive's, "
            "any for no check."
        },
    )
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "The model that scores relevance, of negatives of any source: a folder, a Hub id or "
            "package:NAME/FOLDER. Where not given, the dense miner's encoder scores the synthetic ones."
        },
    )
    teacher_kind: str = field(
        default="cross-encoder",
        metadata={"help": "What the teacher is.", "choices": ["cross-encoder", "bi-encoder"]},
    )
    teacher_margin: float = field(
        default=0.05,
        metadata={
            "help": "m in 'teacher score <= positive's - |positive's| * m', what a negative must meet."
        },
    )
    teacher_max_margin: float | None = field(
        default=None,
        metadata={
            "help": "M in 'teacher score >= positive's - |positive| * M', below which a negative, of any "
            "source, is too easy and dropped; with --teacher_margin a band. null for none."
        },
    )
    teacher_max_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest input of the teacher in tokens, a pair of texts for a cross-encoder; its own "
            "where not given. A bi-encoder that has also mined filters mined negatives once more, unless "
            "this is --encode_max_length."
        },
    )
    teacher_batch_size: int = field(default=32, metadata={"help": "Pairs that the teacher scores at once."})
    teacher_device: str | None = field(
        default=None, metadata={"help": "cpu, cuda ...; the first accelerator there is where not given."}
    )
    teacher_synthetic: str | None = field(
        default=None,
        metadata={
            "help": "What becomes of a synthetic negative that the teacher would drop: judge marks it for "
            "the judge and keeps it until then, drop drops it, keep keeps it. Its scores are kept anyway. "
            "judge where that gate is among --gates, else drop.",
            "choices": ["judge", "drop", "keep"],
        },
    )
    judge_of: str = field(
        default="all",
        metadata={
            "help": "Which negatives the judge reads: all, mined, synthetic, or those the teacher marked.",
            "choices": ["all", "mined", "synthetic", "marked"],
        },
    )
    judge_drop: str = field(
        default="yes",
        metadata={
            "help": "Verdicts that make a document no negative: yes, or partly as well.",
            "choices": ["yes", "partly"],
        },
    )
    judge_relabel: bool = field(
        default=True,
        metadata={
            "help": "Whether a mined document with verdict yes becomes a positive in a row of its own."
        },
    )
    judge_unclear: str = field(
        default="drop",
        metadata={
            "help": "What becomes of a negative whose verdict could not be read; it never counts as clean.",
            "choices": ["drop", "keep"],
        },
    )
    judge_engine: str | None = field(
        default=None, metadata={"help": "The judge's engine, as --engine; that one where not given."}
    )
    judge_llm: str | None = field(
        default=None, metadata={"help": "The judge's LLM, as --llm; that one where not given."}
    )
    judge_recordings: str | None = field(
        default=None,
        metadata={
            "help": "For the judge's engine 'recorded': what to replay, the journal folder of a judge or a "
            "JSONL of verdicts (query_id, doc_id, verdict, evidence, reasoning), an LLM's or people's."
        },
    )

    audit: bool = field(
        default=False,
        metadata={"help": "Whether to find out if synthetic can be told from mined ones without the query."},
    )
    audit_encoder: str | None = field(
        default=None,
        metadata={"help": "For the audit: a model whose embeddings are looked at, too; as --encoder."},
    )

    def __post_init__(self) -> None:
        self.gates = None if self.gates is None else split_commas(self.gates)
        for name in self.wanted:
            if name not in GATES and not is_class_spec(name):
                raise InputError(
                    f"{unknown('gate', name, GATES)} One of your own is FILE.py:CLASS, a "
                    "syneg.gating.gate.Gate with name and apply(drafts, tolls)."
                )
        if self.teacher_synthetic is None:
            self.teacher_synthetic = "judge" if "judge" in self.wanted else "drop"
        marks = self.teacher_synthetic == "judge" and "teacher" in self.wanted
        if marks and "judge" not in self.wanted:
            raise InputError(
                "--teacher_synthetic judge marks synthetic negatives for a judge, and --gates names none: "
                "add the gate judge, or take --teacher_synthetic drop."
            )
        if not 0 <= self.min_length_ratio < self.max_length_ratio:
            raise InputError(
                f"--min_length_ratio {self.min_length_ratio}: must be at least 0 and below "
                f"--max_length_ratio ({self.max_length_ratio})."
            )
        if self.teacher_max_margin is not None and self.teacher_max_margin <= self.teacher_margin:
            raise InputError(
                f"--teacher_max_margin {self.teacher_max_margin}: must be above --teacher_margin "
                f"({self.teacher_margin}); between the two lies what is kept."
            )
        if self.teacher_max_length is not None and self.teacher_max_length < 1:
            raise InputError(f"--teacher_max_length {self.teacher_max_length}: must be at least 1.")
        for key in ("max_copied", "near_duplicate"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"--{key} {getattr(self, key)}: must be between 0 and 1.")

    @property
    def wanted(self) -> list[str]:
        """The gates: those given, or those that hold where none are."""
        return list(DEFAULT_GATES if self.gates is None else self.gates)
