"""Data sets to look at, and a real browser to look with."""

import json
import re
import subprocess
import urllib.request
from pathlib import Path

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


class Browser:
    """Headless Chromium, driven over WebDriver's own HTTP protocol."""

    ARGUMENTS = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,1000"
    )

    def __init__(self, chromium, driver, profile):
        self._process = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        port = None
        for line in self._process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                port = found[1]
                break
        assert port, "chromedriver did not start"
        self._url = f"http://127.0.0.1:{port}/session"
        options = {
            "binary": chromium,
            "args": [*self.ARGUMENTS.split(), f"--user-data-dir={profile}"],
        }
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._ask("POST", "", {"capabilities": {"alwaysMatch": always}})
        self._url += f"/{session['sessionId']}"

    def _ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        request.method = method
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, page):
        self._ask("POST", "/url", {"url": Path(page).resolve().as_uri()})

    def run(self, script, *arguments):
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def log(self):
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def close(self):
        try:
            self._ask("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait()
            self._process.stdout.close()
