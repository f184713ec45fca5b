from __future__ import annotations

from pathlib import Path

import pytest

from syneg.config import ConfigParser
from syneg.evaluation.arguments import CompareArguments, EncodingArguments, EvaluationSourceArguments
from syneg.evaluation.compare import write_configurations

RECIPES = sorted((Path(__file__).parents[2] / "recipes/compare").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_comparison_is_one(path, tmp_path):
    parser = ConfigParser([CompareArguments, EvaluationSourceArguments, EncodingArguments])
    arguments, _, _ = parser.parse(["--config", str(path), "--output", str(tmp_path), "--seeds", "0"])
    planned = write_configurations(arguments, set(), read=False)
    assert [arm for arm, _ in planned] == list(arguments.arms)
    for values in planned.values():
        assert values["bf16"] is True and "mixture" in values
