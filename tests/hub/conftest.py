"""Lets these tests import `hub_server` and each other under any of pytest's import modes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
