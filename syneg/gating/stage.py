"""Gating as a stage: a list of gates, and the count of what they keep and drop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from syneg.encoders import check_device, check_model, public_name
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.checks import Checks
from syneg.gating.gate import Gate, Tolls
from syneg.gating.known import KnownPositives
from syneg.llm.engines import check_ready
from syneg.llm.journal import has_entries
from syneg.llm.requests import Engine
from syneg.mining.stage import Mining
from syneg.resources import check_place, class_from_file, is_class_spec
from syneg.stages import Draft, SizedPairs, Stage
from syneg.writing.arguments import GenerationArguments


class Gating(Stage):
    """Sends drafts through the gates that the arguments name.

    A row that lost all its negatives comes out too. Rows that the judge makes of relabelled documents are
    not gated once more.

    Args:
        args: The gates and their bounds.
        seed: Seed of what a gate draws (the judge's sampling).
        generation: For the judge: engine, LLM and limits.
        journal: For the judge: the folder of its journal.
        engine: For the judge: an engine that runs already, and is left running.
        mining: The stage that mined; its encoder is the teacher where the arguments name none.

    Raises:
        InputError: For a judge without engine and journal, or a language that is not known.
    """

    name = "gating"

    def __init__(
        self,
        args: GatingArguments,
        seed: int = 0,
        *,
        generation: GenerationArguments | None = None,
        journal: str | Path | None = None,
        engine: Engine | None = None,
        mining: Mining | None = None,
    ) -> None:
        self._encoder = mining if mining is not None and mining.has_encoder else None
        if "teacher" in (args.gates or []) and not (args.teacher or self._encoder):
            raise InputError("gate 'teacher' needs --teacher, the model that scores.")
        if "judge" in args.wanted and (generation is None or journal is None):
            raise InputError("gate 'judge' needs an engine and an LLM, and a folder for its journal.")
        self.args, self.seed = args, seed
        self._own = {
            name: class_from_file(name, Gate, "gates", methods=("apply",))  # type: ignore[type-abstract]
            for name in args.wanted
            if is_class_spec(name)
        }
        self._generation, self._journal, self._engine = generation, journal, engine
        self._checks = Checks(args) if "checks" in args.wanted else None
        self._gates: list[Gate] | None = None
        self.tolls = Tolls()
        # What the gate wants that wants most.
        self.group = 512 if "judge" in args.wanted else 256 if args.teacher or self._encoder else 1
        self.group = max(self.group, *(own.group for own in self._own.values()), 1)
        if "teacher" in args.wanted and not (args.teacher or self._encoder):
            self.tolls.not_checked.append(
                "whether synthetic negatives score above the positive, which cost a model most: there is no "
                "encoder; mine with dense, or add --teacher MODEL --teacher_kind bi-encoder"
            )

    @property
    def gates(self) -> list[Gate]:
        """The gates; their models are loaded when they are first wanted."""
        if self._gates is None:
            self._gates = list(self._make())
        return self._gates

    def check(self) -> None:
        """Checks the teacher and its device, the judge's engine and verdicts, and the audit's encoder.

        Raises:
            InputError: For what is not to be had.
        """
        args = self.args
        if "teacher" in args.wanted and args.teacher:
            check_model(args.teacher)
            check_device(args.teacher_device, "teacher_device")
        if args.audit and args.audit_encoder:
            check_model(args.audit_encoder)
        if "judge" in args.wanted:
            from syneg.gating.judge import judge_arguments
            from syneg.gating.verdicts import NoVerdicts

            assert self._generation is not None and self._journal is not None
            check_place(self._journal, "journal")
            asked, verdicts = judge_arguments(args, self._generation)
            if verdicts is not None:
                verdicts.close()
            if self._engine is None and not has_entries(self._journal):
                if isinstance(verdicts, NoVerdicts):
                    raise verdicts.error()
                check_ready(asked)

    def prepare(self, pairs: SizedPairs) -> None:
        """Reads which documents are positives of which query's text, whatever id the query has."""
        if self._checks is not None:
            self._checks.known = KnownPositives((p.query, p.positive, p.positive_id) for p in pairs)

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """Sends drafts through one gate after the other."""
        tolls, made = self.tolls, sum(len(draft.made) for draft in drafts)
        before = [len(draft.dropped) for draft in drafts]
        for draft in drafts:
            tolls.rows += 1
            tolls.seen.update(negative["source"] for negative in draft.row["negatives"])
        for gate in self.gates:
            for start in range(0, len(drafts), gate.group):
                gate.apply(drafts[start : start + gate.group], tolls)
        for draft, dropped in zip(drafts, before, strict=True):
            tolls.kept.update(negative["source"] for negative in draft.row["negatives"])
            tolls.emptied += not draft.row["negatives"] and len(draft.dropped) > dropped
        tolls.added += sum(len(draft.made) for draft in drafts) - made
        return drafts

    def card(self) -> dict[str, Any]:
        """Returns the teacher and its margins."""
        args = self.args
        if "teacher" not in args.wanted or not (args.teacher or self._encoder):
            return {}
        teacher = args.teacher or (self._encoder.args.encoder if self._encoder else "")
        if args.grade_only:
            return {"teacher": public_name(teacher)}
        widest = {} if args.teacher_max_margin is None else {"teacher_max_margin": args.teacher_max_margin}
        return {
            "teacher": public_name(teacher),
            "margins": {"teacher_margin": args.teacher_margin, **widest},
        }

    def report(self) -> Tolls:
        """Returns what was kept and dropped, by gate, kind of reason and source."""
        return self.tolls

    def close(self) -> None:
        """Frees the gates' models, and the judge's engine and journal."""
        for gate in self._gates or []:
            gate.close()
        self._gates = None

    def _make(self) -> Iterator[Gate]:
        for name in self.args.wanted:
            if name == "checks":
                assert self._checks is not None
                yield self._checks
            elif name == "teacher":
                from syneg.gating.teacher import MinerTeacher, Teacher

                if self.args.teacher:
                    yield Teacher(self.args)
                elif self._encoder is not None:
                    assert self._encoder.mined.dense is not None
                    yield MinerTeacher(self.args, self._encoder.mined.dense)
            elif is_class_spec(name):
                yield self._own[name](self.args)
            else:
                from syneg.gating.judge import Judge

                assert self._generation is not None and self._journal is not None
                yield Judge(self.args, self._generation, self._journal, self.seed, self._engine)
