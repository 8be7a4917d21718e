"""Templates described once: settings, parts, recipes, and the files that they become. What runs this finds ``scripts``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "scripts") not in sys.path:
    sys.path.append(str(ROOT / "scripts"))

from environment import need_core  # noqa: E402

need_core()
