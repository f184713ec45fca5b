"""A real browser to look at pages with."""

import base64
import json
import re
import subprocess
import urllib.request
from pathlib import Path


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

    def press(self, keys):
        """Types keys into whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self._ask("POST", "/actions", {"actions": [keyboard]})

    def devtools(self, command, **parameters):
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def view(self, width, height=1000, dark=False):
        """Shows pages as a screen of this width does, in CSS pixels; a window cannot be so narrow."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path):
        """Saves the whole page as a PNG."""
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        Path(path).write_bytes(base64.b64decode(image))

    def cut_off(self):
        """Returns what does not fit: elements that reach beyond the screen, or that scroll sideways."""
        return self.run(
            """
            const width = document.documentElement.clientWidth;
            return [...document.querySelectorAll('body *')]
              .filter((e) => e.getClientRects().length && !e.closest('[hidden], head'))
              .filter((e) => e.getBoundingClientRect().right > width + 1
                || e.getBoundingClientRect().left < -1
                || (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'
                    && getComputedStyle(e).overflowX !== 'visible'))
              .map((e) => `${e.tagName}.${e.getAttribute('class')}: ${e.textContent.slice(0, 40)}`)
            """
        )

    def log(self):
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def close(self):
        try:
            self._ask("DELETE", "")
        finally:
            self._process.terminate()
            self._process.wait()
            self._process.stdout.close()
