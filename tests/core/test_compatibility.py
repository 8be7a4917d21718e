"""What devtools/compatibility asks a host, and how it judges and tells what it got. The host here is a table of answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compatibility.cells import FIRST, LAST, Combination, node, on_model
from compatibility.endurance import Endured, endure
from compatibility.packs import ALL
from compatibility.page import write_page
from compatibility.results import MatrixResults
from compatibility.scene import Scene
from compatibility.trying import Trial, Tried, scene_of
from environment import SetupError
from standins import neighbours

FREE_U = Combination("FreeU", on_model(node("FreeU_V2")))


class FakeHost:
    """Answers with numbers that follow from the nodes of what is asked for; ``changed`` may change an answer."""

    version = "1.2.3"

    def __init__(self, changed=lambda name, scene, count, value: value) -> None:
        self.changed, self.asked, self.freed = changed, [], 0

    def run(self, scene: Scene, name: str, stop_at: int = 0) -> np.ndarray:
        text = scene.as_text(name)
        self.asked.append((name, scene.round))
        value = np.arange(4.0) + ("Apply" in text) * 1.0 + ("FreeU_V2" in text) * 0.5
        return self.changed(name, scene, len(self.asked), value)

    def free(self) -> None:
        self.freed += 1

    def said(self) -> list[str]:
        return []

    def state(self) -> dict:
        return {"memory": 100, "threads": ["main"], "files": [], "replaced": [], "living": {}}


def tried(changed=lambda name, scene, count, value: value) -> list[Tried]:
    trial = Trial(FREE_U, None, FakeHost(changed), {})
    trial.begin()
    return trial.end()


def test_what_is_well_works() -> None:
    for found, order in zip(tried(), (FIRST, LAST), strict=True):
        assert found.works and found.order == order
        assert found.faces == 1 and found.other > 0


@pytest.mark.parametrize(
    "spoil, field",
    [
        (lambda name, scene, count, value: value + 1e-7 * (name == "both1" and scene.round == 2), "same_bits"),
        (lambda name, scene, count, value: value + 1e-7 * (name == "plain" and scene.round == 1), "untouched"),
        (lambda name, scene, count, value: value - 1.0 * name.startswith("both"), "faces"),
        (lambda name, scene, count, value: value - 0.5 * name.startswith("both"), "other"),
    ],
)
def test_what_is_spoilt_does_not_work(spoil, field: str) -> None:
    found = tried(spoil)[1]
    assert not found.works
    assert not getattr(found, field)


def test_faces_of_a_second_pass_are_measured_against_the_pass_without_them() -> None:
    orders = {
        "without": lambda scene: scene.link("Refine", image=scene.faces(scene.model), model=scene.model),
        "with": lambda scene: scene.link("Refine", image=scene.faces(scene.model), model=scene.faces(scene.model)),
    }
    plain = lambda scene: scene.sample(scene.faces(scene.model))  # noqa: E731
    refined = Combination("Refine", orders, plain, second="without")

    def changed(acts: float):
        by_pass = {"both0": 2.0, "both1": 2.0 + acts}
        return lambda name, scene, count, value: value + by_pass.get(name, 0.0)

    for acts, works in ((1.0, True), (0.1, False)):
        trial = Trial(refined, None, FakeHost(changed(acts)), {})
        trial.begin()
        without, found = trial.end()
        assert without.faces is None and without.works
        assert found.faces == pytest.approx(acts / 2) and found.works is works


def test_an_error_is_told_and_whether_it_is_there_without_faces() -> None:
    def fail(where: str):
        def changed(name, scene, count, value):
            if name.startswith(where):
                raise SetupError("A node: broken")
            return value

        return changed

    alone, both = tried(fail("other"))[0], tried(fail("both"))[0]
    assert alone.error == both.error == "A node: broken"
    assert alone.alone and not both.alone


def test_upstream_is_asked_for_once_for_all_combinations() -> None:
    host, known = FakeHost(), {}
    for _ in range(2):
        Trial(FREE_U, None, host, known).begin()
    assert host.asked.count(("plain", 0)) == 1
    assert host.asked.count(("plain", 1)) == 2


@pytest.mark.parametrize("combination", ALL, ids=lambda combination: combination.name)
def test_every_combination_writes_itself(combination: Combination) -> None:
    """People are in all and only the graphs that are said to have them, and the other node too."""
    scene = scene_of(combination, None, 0)
    for name in scene.kept:
        has_people = "DynamicIDApply" in scene.as_text(name)
        assert has_people == (name == "faces" or name.startswith("both")), name
    plain = scene.as_text("faces")
    assert all(scene.as_text(name) != plain for name in scene.kept if name.startswith("both"))
    assert set(combination.notes) <= set(combination.orders)
    known = [entry for entry in scene.nodes.values() if entry["class_type"] == "DynamicIDApply"]
    assert len(known) == len({str(entry) for entry in known})


def test_the_page_tells_what_was_found(tmp_path: Path) -> None:
    results = MatrixResults(tmp_path / "matrix-1.2.3.json", "1.2.3")
    for found in tried(lambda name, scene, count, value: value - 1.0 * (name == "both1")):
        results.put(found)
    results.put(Tried("LoRA", FIRST, "", error="A node: broken\nhere", alone=True))
    results.write()
    old = MatrixResults(tmp_path / "matrix-0.9.0.json", "0.9.0", refusal="DynamicID needs more.")
    old.write()
    endured = endure(FakeHost(), people=True, runs=20)
    endured.states[-1] |= {"memory": 103, "threads": ["main", "forgotten"]}
    endured.write(tmp_path)
    (tmp_path / "versions.md").write_text("| Python | tests |\n")
    write_page(tmp_path / "page.md", tmp_path)
    page = (tmp_path / "page.md").read_text("utf-8")
    assert f"| FreeU | {FIRST} | yes | yes | yes | 1.00 |" in page
    assert f"**FreeU, {LAST}**: faces do not show." in page
    assert "fails without DynamicID too: `A node: broken here`" in page
    assert page.index("ComfyUI 1.2.3") < page.index("ComfyUI 0.9.0") and "`DynamicID needs more.`" in page
    assert "| 1.2.3 | with | 20 |" in page and "+3.0% | +3.0% | yes | threads: forgotten |" in page
    assert page.endswith("| Python | tests |\n")


def test_endurance_interrupts_and_goes_on() -> None:
    class Interrupted(FakeHost):
        def run(self, scene: Scene, name: str, stop_at: int = 0) -> np.ndarray:
            if stop_at > 2:
                raise SetupError("The run was interrupted in ComfyUI.")
            return super().run(scene, name)

    host = Interrupted()
    endured = endure(host, people=True, runs=40)
    assert endured.runs == 40 and 0 < endured.interrupted < 20 and endured.same_bits
    assert host.freed == len(endured.states) == 4
    assert endured.growth() == 0 and Endured.read_all(Path("/nowhere")) == []


def test_stand_ins_of_other_packs_have_the_shapes_of_their_base() -> None:
    unet = {
        "input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
        "input_blocks.1.0.out_layers.3.weight": torch.zeros(8, 8, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.ones(8, 768),
        "middle_block.2.out_layers.3.weight": torch.zeros(16, 16, 3, 3),
        "output_blocks.0.0.out_layers.3.weight": torch.zeros(8, 16, 3, 3),
    }
    checkpoint = {neighbours.PREFIX + name: tensor for name, tensor in unet.items()}
    lora = neighbours.lora(checkpoint)
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    assert {key: weight.shape for key, weight in lora.items()} == {
        f"{name}.lora_down.weight": (4, 768),
        f"{name}.lora_up.weight": (8, 4),
    }
    control = neighbours.controlnet(checkpoint)
    assert "control_model.output_blocks.0.0.out_layers.3.weight" not in control
    assert control["control_model.zero_convs.1.0.weight"].shape == (8, 8, 1, 1)
    assert control["control_model.middle_block_out.0.weight"].shape == (16, 16, 1, 1)
    assert neighbours.ip_adapter(checkpoint, 5)["ip_adapter.1.to_k_ip.weight"].shape == (8, 768)
