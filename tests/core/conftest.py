"""Lets the tests of this folder share ``recipe``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
