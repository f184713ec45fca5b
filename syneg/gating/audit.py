"""Audit: can the synthetic negatives be told from the mined ones without the query?

A model trained on negatives whose source shows can learn the source instead of relevance (CausalNeg,
arXiv 2606.01304, finds about a quarter of them in clusters of one source). The audit trains classifiers
that never see a query, and reports how well they tell the sources apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from syneg.errors import InputError
from syneg.gating.features import SURFACE_FEATURES, surface_features
from syneg.mining.candidates import mix
from syneg.rows import SYNTHETIC, Row
from syneg.text import text_keys, units, words

WARN_ABOVE = 0.8
_FOLDS = 5
_PURE = 0.9
"""Share of one source from which a cluster counts as made of it."""


@dataclass
class Separability:
    """How well a classifier tells synthetic from mined, on texts of queries it was not trained on.

    Attributes:
        auc: Area under the ROC curve; 0.5 is chance.
        low: Lower end of its 95% confidence interval (bootstrap over queries).
        high: Its upper end.
    """

    auc: float
    low: float
    high: float


@dataclass
class AuditReport:
    """What the audit found.

    Attributes:
        synthetic: Synthetic texts looked at.
        mined: Mined texts looked at.
        by: Separability by what the classifier sees: "surface", "words", "embeddings".
        surface: The surface features that tell most: name, AUC of the feature alone (above 0.5 where
            synthetic texts have more), median in synthetic, median in mined texts.
        synthetic_words: Words that give away a synthetic text, the strongest first.
        mined_words: Words that give away a mined one.
        length: Quantiles 5%, 25%, 50%, 75%, 95% of the number of words, by source.
        vocabulary: Different words in the first 20,000 of each source.
        clusters: Clusters made.
        pure_clusters: Those with 8 texts at least and 90% or more of one source.
        in_pure_clusters: Share of the texts that are in them.
        in_pure_by_chance: The same with the sources shuffled.
    """

    synthetic: int
    mined: int
    by: dict[str, Separability] = field(default_factory=dict)
    surface: list[tuple[str, float, float, float]] = field(default_factory=list)
    synthetic_words: list[str] = field(default_factory=list)
    mined_words: list[str] = field(default_factory=list)
    length: dict[str, list[float]] = field(default_factory=dict)
    vocabulary: dict[str, int] = field(default_factory=dict)
    clusters: int = 0
    pure_clusters: int = 0
    in_pure_clusters: float = 0.0
    in_pure_by_chance: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the findings as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns the findings as lines for a person."""
        lines = [
            f"audit: {self.synthetic:,} synthetic and {self.mined:,} mined negatives, "
            "told apart without the query"
        ]
        for sees, found in self.by.items():
            lines.append(
                f"  by {sees}: AUC {found.auc:.3f} (95% interval {found.low:.3f} to {found.high:.3f})"
            )
        for name, auc, synthetic, mined in self.surface:
            lines.append(f"  {name}: median {synthetic:.2f} synthetic, {mined:.2f} mined (AUC {auc:.2f})")
        lines.append(f"  words of synthetic ones: {', '.join(self.synthetic_words)}")
        lines.append(f"  words of mined ones: {', '.join(self.mined_words)}")
        for source, quantiles in self.length.items():
            shown = ", ".join(f"{value:.0f}" for value in quantiles)
            lines.append(
                f"  {source}: words at 5, 25, 50, 75, 95%: {shown}; "
                f"{self.vocabulary[source]:,} different words in the first 20,000"
            )
        if self.clusters:
            lines.append(
                f"  {self.pure_clusters} of {self.clusters} clusters are of one source, "
                f"with {self.in_pure_clusters:.0%} of the texts (by chance {self.in_pure_by_chance:.0%})"
            )
        return lines + self.warnings()

    def warnings(self) -> list[str]:
        """Returns what to do where a source shows, or nothing."""
        worst = max(self.by.items(), key=lambda item: item[1].auc, default=None)
        if worst is None or worst[1].auc <= WARN_ABOVE:
            return []
        return [
            f"WARNING: a classifier that never sees the query tells the sources apart by {worst[0]}, with an "
            f"AUC of {worst[1].auc:.2f} (above {WARN_ABOVE}). A retriever can learn that, too, instead of "
            "relevance. "
            "What helps: ask for the positive's style and length in the prompt (attributes, persona); "
            "--strategy counterfactual, which rewrites a mined document; --mirror true, so that synthetic "
            "documents are positives too; and in training --source_entropy_weight 0.05."
        ]


def audit(
    rows: Iterable[Row],
    encode: Any = None,
    seed: int = 0,
    at_most: int = 4000,
    clusters: int | None = None,
) -> AuditReport:
    """Audits the negatives of rows.

    As many mined as synthetic texts are drawn, each text once. Texts of one query are never in both
    training and test part of a fold.

    Args:
        rows: The rows.
        encode: Turns a list of texts into embeddings, shape (texts, dimension); without it the audit
            sees words and surface features only.
        seed: Seed of the draw, the folds and the clusters.
        at_most: Texts of each source, at most.
        clusters: How many clusters to make of the embeddings; about one for 40 texts where None.

    Raises:
        InputError: Where synthetic or mined negatives are missing, or too few for 5 folds.
    """
    texts, labels, groups = _draw(rows, seed, at_most)
    report = AuditReport(synthetic=int(labels.sum()), mined=int((~labels).sum()))
    _describe(report, texts, labels)
    features = surface_features(texts.tolist())
    report.surface = _telling(features, labels)
    report.by["surface"] = _separability(_forest(seed), features, labels, groups, seed)
    report.by["words"] = _separability(_words(), texts, labels, groups, seed)
    report.synthetic_words, report.mined_words = _telling_words(texts, labels)
    if encode is not None:
        embeddings = np.asarray(encode(list(texts)), dtype=np.float32)
        report.by["embeddings"] = _separability(_linear(), embeddings, labels, groups, seed)
        _cluster(report, embeddings, labels, clusters or max(2, len(texts) // 40), seed)
    return report


def _draw(rows: Iterable[Row], seed: int, at_most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns texts, whether each is synthetic, and its query; as many of one source as of the other."""
    by_source: dict[bool, dict[str, str]] = {True: {}, False: {}}
    for row in rows:
        for negative in row["negatives"]:
            synthetic = negative["source"] == SYNTHETIC
            # What is in both sources tells nothing; one text has one query here.
            by_source[synthetic].setdefault(negative["text"], row["query_id"])
    number = min(at_most, *(len(found) for found in by_source.values()))
    if number < 2 * _FOLDS:
        raise InputError(
            f"the audit needs at least {2 * _FOLDS} synthetic and {2 * _FOLDS} mined negatives; there are "
            f"{len(by_source[True])} and {len(by_source[False])}."
        )
    texts: list[str] = []
    groups: list[str] = []
    for synthetic in (True, False):
        found = list(by_source[synthetic])
        chosen = np.argsort(mix(seed, text_keys(found)), kind="stable")[:number]
        texts += [found[i] for i in chosen]
        groups += [by_source[synthetic][found[i]] for i in chosen]
    if len(set(groups)) < _FOLDS:
        raise InputError(f"the audit needs negatives of at least {_FOLDS} queries; found {len(set(groups))}.")
    labels = np.repeat([True, False], number)
    return np.array(texts, dtype=object), labels, np.array(groups, dtype=object)


def _describe(report: AuditReport, texts: np.ndarray, labels: np.ndarray) -> None:
    for name, here in (("synthetic", labels), ("mined", ~labels)):
        split = [units(text.lower()) for text in texts[here]]
        report.length[name] = np.quantile([len(w) for w in split], [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
        report.vocabulary[name] = len(set([word for text in split for word in text][:20_000]))


def _separability(
    classifier: Any, features: Any, labels: np.ndarray, groups: np.ndarray, seed: int
) -> Separability:
    """Returns the cross-validated AUC, with a bootstrap interval that draws whole queries."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(classifier, features, labels, groups=groups, cv=folds, method="predict_proba")[
        :, 1
    ]
    rng = np.random.default_rng(seed)
    _, group_of = np.unique(groups.astype(str), return_inverse=True)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    draws = []
    for _ in range(200):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if 0 < labels[drawn].sum() < len(drawn):
            draws.append(roc_auc_score(labels[drawn], scores[drawn]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Separability(float(roc_auc_score(labels, scores)), float(low), float(high))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, min_samples_leaf=3, random_state=seed)


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        TfidfVectorizer(
            tokenizer=words, token_pattern=None, min_df=3, sublinear_tf=True, max_features=50_000
        ),
        LogisticRegression(C=10, max_iter=300),
    )


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))


def _telling(
    features: np.ndarray, labels: np.ndarray, most: int = 5
) -> list[tuple[str, float, float, float]]:
    from sklearn.metrics import roc_auc_score

    found = []
    for name, column in zip(SURFACE_FEATURES, features.T, strict=True):
        auc = float(roc_auc_score(labels, column))
        found.append((name, auc, float(np.median(column[labels])), float(np.median(column[~labels]))))
    return sorted(found, key=lambda item: -abs(item[1] - 0.5))[:most]


def _telling_words(texts: np.ndarray, labels: np.ndarray, most: int = 12) -> tuple[list[str], list[str]]:
    classifier = _words().fit(texts, labels)
    names = classifier[0].get_feature_names_out()
    order = np.argsort(classifier[1].coef_[0])
    return names[order[::-1][:most]].tolist(), names[order[:most]].tolist()


def _cluster(report: AuditReport, embeddings: np.ndarray, labels: np.ndarray, number: int, seed: int) -> None:
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(number, random_state=seed, n_init=3).fit_predict(embeddings)
    sizes = np.bincount(found, minlength=number)
    synthetic = np.bincount(found, weights=labels, minlength=number) / np.maximum(1, sizes)
    # Smaller ones are pure by chance often enough.
    pure = (sizes >= 8) & ((synthetic >= _PURE) | (synthetic <= 1 - _PURE))
    report.clusters = int((sizes > 0).sum())
    report.pure_clusters = int(pure.sum())
    report.in_pure_clusters = float(sizes[pure].sum() / len(labels))
    shuffled = np.bincount(found, weights=np.random.default_rng(seed).permutation(labels), minlength=number)
    by_chance = (sizes >= 8) & (np.abs(2 * shuffled / np.maximum(1, sizes) - 1) >= 2 * _PURE - 1)
    report.in_pure_by_chance = float(sizes[by_chance].sum() / len(labels))


def encoder_for_audit(spec: str | None) -> Any:
    """Loads the model of `--audit_encoder`; returns what `audit` takes as `encode`, None for none."""
    if spec is None:
        return None
    from syneg.encoders import load_encoder

    model = load_encoder(spec)
    return lambda texts: model.encode_document(texts, show_progress_bar=True)
