"""For the ComfyUIs that tests start, as a custom node without nodes: builds 2 of ViT-H/14's 32 layers.

The stand-in's other layers pass tokens on unchanged (devtools/standins/clip.py), so that no value changes, and a photo
takes a fifteenth of the time. test_standins_in_host.py holds it against the whole model.
"""

import json
from pathlib import Path

import comfy.clip_vision

NODE_CLASS_MAPPINGS = {}
LAYERS = 2
whole = comfy.clip_vision.ClipVisionModel.__init__


def shallow(self, json_config) -> None:
    config = json.loads(Path(json_config).read_text(encoding="utf-8"))
    changed = Path(__file__).with_suffix(".json")  # older hosts take a file, not its content
    changed.write_text(json.dumps(config | {"num_hidden_layers": LAYERS}), encoding="utf-8")
    whole(self, str(changed))


shallow.whole = whole  # for the test that compares
comfy.clip_vision.ClipVisionModel.__init__ = shallow
