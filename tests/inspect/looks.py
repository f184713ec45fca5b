"""Data sets to look at."""

from syneg.hub.cards import DatasetCardInfo
from syneg.hub.folders import FolderWriter
from syneg.rows import DROPPED_FEATURES, FEATURES, make_negative, make_row

EVIL = [
    "<script>window.pwned = 1</script>",
    "</p></div><img src=x onerror='window.pwned = 1'>",
    '"><svg onload="window.pwned = 1">',
    "' autofocus onfocus='window.pwned = 1",
    "</script><script>window.pwned = 1</script>",
    "</title><script>window.pwned = 1</script>",
    "{{ 7 * 7 }}<iframe srcdoc='<script>top.pwned = 1</script>'></iframe>",
    "\x1b[31mred\x1b[0m \u202eback to front",
]


def write(output, rows, dropped=(), name="toy-hardneg", **info):
    with FolderWriter(output) as folder:
        folder.write("default", "train", rows, FEATURES)
        folder.write("dropped", "train", dropped, DROPPED_FEATURES)
        folder.write_card(DatasetCardInfo(name=name, licence="apache-2.0", **info))
    return output


def make_rows(count):
    for i in range(count):
        positive = f"The zebra number {i} drinks cold water at the river in the evening."
        negatives = [
            make_negative(
                f"The zebra number {i} drinks cold water at the lake in 1987.",
                "synthetic",
                difficulty="foundational" if i % 2 else "advanced",
                reasoning=f"only the place of zebra {i} is changed",
            ),
            make_negative(f"Bears like honey, says book {i}.", "bm25", doc_id=f"d{i}", rank=3, score=7.25),
            make_negative(f"Rivers carry {i} stones.", "dense", doc_id=f"e{i}", rank=0, score=0.5),
        ]
        yield make_row(f"q{i}", f"where does zebra {i} drink", f"p{i}", positive, negatives)
