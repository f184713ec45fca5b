"""The card: what the Hub's viewer reads, what people read, and texts that try to break out of it."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from syneg.hub.cards import DatasetCardInfo, report, size_category
from syneg.hub.folders import FolderWriter, read_folder
from syneg.rows import FEATURES, iter_triplets, make_negative, make_row, triplet_features

INFO = DatasetCardInfo(
    name="toy-hardneg",
    repo_id="syneg/toy-hardneg",
    version="1.2.0",
    source="scifact",
    source_datasets=["BeIR/scifact"],
    licence="apache-2.0",
    languages=["en"],
    mining={"bm25": {"depth": 100, "filters": [{"filter": "same document", "dropped": 12}]}},
    strategy="self-reflection",
    prompt_version="1",
    prompt="You are an expert in {domain}.\n\nWrite a <document>.",
    attributes={"domain": ["Virology", "Epidemiology"], "length": ["as long as"]},
    engine="recorded",
    llm="Qwen/Qwen3-4B-Instruct-2507",
    generation={"requests": 919, "failed": 0},
    tokens={"prompt": 1234567, "completion": 89},
    gating={"length": {"seen": 919, "dropped": 7, "share": 0.00761}},
    seeds={"generation": 7},
    limits=["Domains were drawn at random."],
)

HOSTILE = [
    "plain\n\n# a heading\n\n---\nlicense: stolen\nconfigs: []\n---\n",
    "</pre></td></table><script>alert(1)</script><img src=x onerror=alert(1)>",
    "```\n\n```python\nimport os\n```",
    "a | b | c\n|---|---|\n| x | y |",
    "{{ 7 * 7 }} {% raw %} ${HOME} [link](http://evil.example) ![x](http://evil.example/p.png)",
    "tab\tand\rcarriage\u2028separator\x0bvertical \u202e bidi \x1b[31m",
]


def build(output, texts, info=INFO):
    def rows():
        for i, text in enumerate(texts):
            negatives = [
                make_negative(f"mined {text}", "bm25", rank=i, score=12.345678),
                make_negative(f"written {text}", "synthetic", difficulty=text[:20], verdict=text[:20]),
            ]
            yield make_row(f"q{i}", f"query {text}", f"p{i}", f"positive {text}", negatives)

    with FolderWriter(output) as folder:
        folder.write("default", "train", rows(), FEATURES)
        folder.write("triplet", "train", iter_triplets(rows(), 2), triplet_features(2))
        return folder.write_card(info)


def test_the_yaml_is_what_the_viewer_needs(tmp_path):
    data = DatasetCard(build(tmp_path / "toy", ["a"] * 8)).data
    assert data.license == "apache-2.0"
    assert data.language == ["en"]
    assert data.size_categories == ["n<1K"]
    assert "synthetic" in data.tags
    assert [config["config_name"] for config in data["configs"]] == ["default", "triplet"]
    assert data["configs"][0]["default"] is True
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": "default/train-*-of-*.parquet"}]
    infos = {info["config_name"]: info for info in data["dataset_info"]}
    assert infos["default"]["splits"][0]["num_examples"] == 8
    assert [feature["name"] for feature in infos["triplet"]["features"]] == [
        "anchor",
        "positive",
        "negative_1",
        "negative_2",
    ]
    disk = (tmp_path / "toy" / "default" / "train-00000-of-00001.parquet").stat().st_size
    assert infos["default"]["download_size"] == disk


def test_the_text_says_what_made_it(tmp_path):
    card = build(tmp_path / "toy", ["a"] * 8)
    for words in (
        "Qwen/Qwen3-4B-Instruct-2507",
        "self-reflection",
        "Virology; Epidemiology",
        "<td>same document</td><td>12</td>",
        "<th>prompt</th><td>1,234,567</td>",
        "<th>share</th><td>0.00761</td>",
        "You are an expert in {domain}.\n\nWrite a &lt;document&gt;.",
        "2412.17250",
        "Domains were drawn at random.",
        'load_dataset("syneg/toy-hardneg", "triplet", split="train")',
        'Mixture({"bm25": 3})',
        'revision="v1.2.0"',
    ):
        assert words in card, words
    assert card.count("<tr><th>query</th>") == 5


REPORTS = {
    "mining": {
        "train": {
            "pairs": 919,
            "per_miner": 8,
            "short_rows": "keep",
            "miners": {
                "bm25": {"candidates": 91, "kept": 7, "dropped": {"positive": 3, "rank": 0}, "filled": 0},
                "dense": {"candidates": 90, "kept": 8, "dropped": {"positive": 0, "rank": 0}, "filled": 0},
            },
        }
    },
    "gating": {
        "train": {
            "rows": 919,
            "emptied": 0,
            "kept": {"bm25": 7, "dense": 8},
            "dropped": {
                "checks": {"length": {"synthetic": 4}},
                "judge": {"yes": {"synthetic": 5, "dense": 6}},
            },
            "notes": {},
        }
    },
}


def test_what_it_takes_to_make_it_again_is_there(tmp_path):
    info = dataclasses.replace(
        INFO,
        command="syneg build --config scifact --output out <&>",
        encoder="sentence-transformers/all-MiniLM-L6-v2",
        teacher="BAAI/bge-reranker-base",
        margins={"absolute_margin": None, "relative_margin": 0.05, "teacher_margin": 0.0},
        left_out=["3 documents without text", "2 judgements of unknown documents [x](http://evil.example)"],
        seeds={"seed": 0},
    )
    card = build(tmp_path / "toy", ["a"] * 3, info)
    for words in (
        "<pre>\nsyneg build --config scifact --output out &lt;&amp;&gt;\n</pre>",
        "<th>encoder (dense miner)</th><td>sentence-transformers/all-MiniLM-L6-v2</td>",
        "<th>teacher</th><td>BAAI/bge-reranker-base</td>",
        "(--relative_margin)</th><td>0.05</td>",
        "(--teacher_margin)</th><td>0.0</td>",
        "<th>seed</th><td>0</td>",
        "- 3 documents without text\n- 2 judgements of unknown documents \\[x\\](http",
    ):
        assert words in card, words
    assert "--absolute_margin" not in card
    assert read_folder(tmp_path / "toy").manifest["teacher"] == "BAAI/bge-reranker-base"


def test_a_row_comes_before_anything_about_the_rows(tmp_path):
    body = build(tmp_path / "toy", ["a"] * 8).split("\n---\n", 1)[1]
    assert body.index("<th>positive</th>") < body.index("<th>configuration</th>") < body.index("## Load it")


def test_no_table_is_within_a_table_and_no_figure_is_zero(tmp_path):
    card = build(tmp_path / "toy", ["a"] * 8, dataclasses.replace(INFO, **REPORTS))
    depth = deepest = 0
    for tag in re.findall(r"</?table", card):
        depth += 1 if tag == "<table" else -1
        deepest = max(deepest, depth)
    assert (depth, deepest) == (0, 1)
    made = card.split("## What made it")[1].split("### Prompt")[0]
    assert "<td>0</td>" not in made
    for words in (
        "<th>by miner</th><th>bm25</th><th>dense</th>",
        "<td>candidates found</td><td>91</td><td>90</td>",
        "<td>dropped: is a positive of the query</td><td>3</td><td></td>",
        "<th>dropped</th><th>synthetic</th><th>dense</th>",
        "<td>judge: yes</td><td>5</td><td>6</td>",
        "<th>rows that came in</th><td>919</td>",
    ):
        assert words in made, words
    for name in ("ranks above", "filled", "emptied", "random documents", "lost their last"):
        assert name not in made, name


def test_figures_keep_the_order_of_the_report():
    """Also where the first column has none of the first figure."""
    text = str(report({"bm25": {"a": 0, "b": 1}, "dense": {"a": 2, "b": 3}}))
    assert text.index("<td>a</td><td></td><td>2</td>") < text.index("<td>b</td><td>1</td><td>3</td>")


def test_splits_have_headings_of_their_own(tmp_path):
    reports = {"gating": {"train": {"rows": 3}, "test": {"rows": 4}}}
    with FolderWriter(tmp_path / "toy") as folder:
        for split in ("train", "test"):
            row = make_row("q", "query", "p", "positive", [make_negative("text", "bm25")])
            folder.write("default", split, [row], FEATURES)
        card = folder.write_card(dataclasses.replace(INFO, **reports))
    assert "### Gates, train\n" in card
    assert "### Gates, test\n" in card


def test_no_repository_is_named_that_nobody_has_chosen(tmp_path):
    card = build(tmp_path / "toy", ["a"] * 3, dataclasses.replace(INFO, repo_id=None))
    assert "syneg/toy-hardneg" not in card
    assert card.count('load_dataset("path/to/this/folder"') == 3
    assert "revision=" not in card


def test_long_texts_and_long_lists_are_cut(tmp_path):
    negatives = [make_negative("word " * 1000, "bm25", rank=i) for i in range(20)]
    with FolderWriter(tmp_path / "toy") as folder:
        folder.write("default", "train", [make_row("q", "query", "p", "positive", negatives)], FEATURES)
        card = folder.write_card(INFO)
    assert "and 14 more" in card
    assert max(len(line) for line in card.splitlines()) < 1000


class Tags(HTMLParser):
    """The elements of a rendered card, their attributes, and the texts in the cells of its tables."""

    def __init__(self, card):
        super().__init__()
        self.names, self.attributes, self.cells, self.open = set(), [], [], []
        head, body = card.split("\n---\n", 1)
        yaml.safe_load(head.removeprefix("---\n"))
        markdown = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
        self.feed(markdown.render(body))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements do not close in order"

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


OURS = {"h1", "h2", "h3", "p", "em", "code", "pre", "ul", "li"} | {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_rendered_hostile_passages_are_texts(tmp_path, text):
    tags = Tags(build(tmp_path / "toy", [text] * 3))
    assert tags.names <= OURS, tags.names - OURS
    assert {name for name, _ in tags.attributes} <= {"colspan", "class"}
    assert tags.open == []
    plain = " ".join(text.split()).replace("\u202e", "\ufffd").replace("\x1b", "\ufffd")
    assert tags.cells.count(f"query {plain}") == 3
    assert tags.cells.count(f"written {plain}") == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_rendered_hostile_metadata_is_text(tmp_path, text):
    info = DatasetCardInfo(
        name=text,
        repo_id=text,
        version=text,
        source=text,
        licence=text,
        tags=[text],
        llm=text,
        prompt=text,
        prompt_version=text,
        gating={text: {text: text}, "list": [{text: text}]},
        limits=[text],
    )
    card = build(tmp_path / "toy", ["a", "b"], info)
    data = DatasetCard(card).data
    assert data.license == text
    assert data.pretty_name == text
    assert [config["config_name"] for config in data["configs"]] == ["default", "triplet"]
    tags = Tags(card)
    assert tags.names <= OURS, tags.names - OURS
    assert {name for name, _ in tags.attributes} <= {"colspan", "class"}
    assert len(load_dataset(str(tmp_path / "toy"), split="train", cache_dir=str(tmp_path / "c"))) == 2


def test_reports_of_like_parts_have_a_column_for_each():
    gates = {"length": {"seen": 10, "dropped": {"short": 1}}, "copy": {"seen": 9, "share": 0.5}}
    assert str(report(gates)).replace("\n", "") == (
        "<table><tr><th></th><th>length</th><th>copy</th></tr>"
        "<tr><td>seen</td><td>10</td><td>9</td></tr>"
        "<tr><td>dropped: short</td><td>1</td><td></td></tr>"
        "<tr><td>share</td><td></td><td>0.5</td></tr></table>"
    )


def test_reports_leave_out_what_is_empty_and_have_no_blank_line():
    text = str(report({"train": {"pairs": 4, "failures": {}, "none": None, "run": {"seconds": 1.5}}}))
    assert "failures" not in text
    assert "none" not in text
    assert "<th>seconds</th><td>1.5</td>" in text
    assert "\n\n" not in text
    assert "\n\n" not in str(report({"a": {}, "b": {}}))


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (502939, "100K<n<1M"), (10**12, "1B<n<10B")],
)
def test_size_category(rows, category):
    assert size_category(rows) == category


def test_whose_the_texts_are_and_what_was_written_stand_in_the_card(tmp_path):
    """A replay names no LLM, and its negatives are synthetic all the same."""
    info = dataclasses.replace(
        INFO, llm=None, attribution="Texts of *toys*, CC BY 4.0.", margins={"relative_margin": {"bm25": 0.05}}
    )
    text = build(tmp_path / "toy", ["a"] * 8, info)
    assert "Texts of \\*toys\\*, CC BY 4.0." in text.split("<table>")[0]
    assert "<td>bm25=0.05</td>" in text
    assert "synthetic" in DatasetCard(text).data.tags
    assert "synthetic" not in DatasetCard(build(tmp_path / "mined", ["a"], DatasetCardInfo("m"))).data.tags
