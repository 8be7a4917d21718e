"""Write ``workflows/``: ``python devtools/build_workflows.py [--server URL]``, with a ComfyUI running that has this pack.

Every workflow is described once, in ``building``, for two settings. ``workflows/<title>.json`` is for the host's editor,
which lists it as a template: it runs as it is opened, on the drawn world. ``workflows/api/<name>.json`` is the same graph
for scripts, with photos and the published weights. Titles of nodes are part of the interface: scripts find nodes by them.
"""

from __future__ import annotations

import argparse
import sys

from building.files import WORKFLOWS, ask, build, write
from environment import run_script


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write workflows/ for the nodes of a running ComfyUI.")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="its address (default: %(default)s)")
    write(build(*ask(parser.parse_args(arguments).server)), WORKFLOWS)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
