"""Settings of every test: no hub, and caches in a folder of the run's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before any library reads them.
_CACHES = tempfile.mkdtemp(prefix="syneg-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = str(Path(_CACHES) / "datasets")
os.environ["SYNEG_CACHE"] = str(Path(_CACHES) / "syneg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import pytest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _remove_caches() -> Iterator[None]:
    yield
    shutil.rmtree(_CACHES, ignore_errors=True)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT as a SentenceTransformer folder."""
    from tests.stand_in import tiny_encoder

    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A small source as a BEIR folder."""
    from tests.stand_in import tiny_source

    return tiny_source().save(tmp_path / "beir")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, for the pages."""
    from tests.browser import Browser

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        reason = "no Chromium and chromedriver (apt-get install chromium chromium-driver)"
        if os.environ.get("SYNEG_REQUIRE_CHROMIUM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    browser = Browser(chromium, driver, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
