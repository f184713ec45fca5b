from __future__ import annotations

import subprocess
import sys
import time

from syneg.llm.engines.watchdog import Watchdog

OWNER = """
import sys, time
from syneg.llm.engines.watchdog import Watchdog
watchdog = Watchdog([int(sys.argv[1])])
print("watching", flush=True)
time.sleep(600)
"""


def test_what_is_watched_dies_with_the_owner_and_not_before():
    watched = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(watched.pid)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "watching\n"
        time.sleep(0.5)
        assert watched.poll() is None
        owner.kill()
        assert watched.wait(30) != 0
    finally:
        watched.kill()
        owner.kill()
        owner.communicate()
        watched.wait()


def test_dismissed_it_lets_live():
    watched = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        watchdog = Watchdog([watched.pid])
        watchdog.dismiss()
        watchdog.dismiss()
        time.sleep(0.5)
        assert watched.poll() is None
    finally:
        watched.kill()
        watched.wait()
