"""Memory that runs out in the library and on the command line: all is as before, and the next run gives the same bits."""

from __future__ import annotations

import pytest
import torch
from out_of_memory import MESSAGE, alive, out_of_memory
from standins import pipeline as standins
from standins.portraits import draw_portrait

from dynamicid_core import call, encode
from dynamicid_core.call import AppliedCast, Call
from dynamicid_core.gate_maps import GateRecorder
from dynamicid_core.refining import RefineOptions

pytest.importorskip("diffusers")
pytest.importorskip("insightface")

from dynamicid_core.hosts.diffusers import lora, photos


@pytest.fixture(scope="module")
def did():
    return standins.make_dynamicid()


@pytest.fixture(scope="module")
def people(did):
    return [did.encode(draw_portrait(seed), name=name) for seed, name in enumerate(("Anna", "Ben"))]


def weights(did) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in did.pipe.unet.state_dict().items()}


def draw(did) -> torch.Tensor:
    how = {"num_inference_steps": 2, "width": 64, "height": 64, "output_type": "latent"}
    return did.pipe("two people", generator=torch.Generator().manual_seed(1), **how).images


def draw_people(did, people, **how) -> torch.Tensor:
    with did.apply(people, **how):
        return draw(did)


SAMPLING = {
    "while the LoRA is merged": (torch, "addmm", 7),
    "while the cast is packed": (AppliedCast, "of", 1),
    "in a cross attention": (call, "add_faces", 20),
    "in the first cross attention": (call, "add_faces", 1),
    "while regions are laid out": (call, "region_weights", 1),
}


@pytest.mark.parametrize("place", SAMPLING)
def test_sampling_leaves_the_pipeline_as_it_was(did, people, place):
    before, plain, expected = weights(did), draw(did), draw_people(did, people)
    with pytest.raises(torch.OutOfMemoryError, match=MESSAGE), out_of_memory(*SAMPLING[place]) as calls:
        draw_people(did, people)
    assert calls[0] == SAMPLING[place][2], "it ran out where it should"
    assert all(torch.equal(tensor, before[name]) for name, tensor in did.pipe.unet.state_dict().items())
    assert not alive(AppliedCast, Call), "what was made for the cast is gone"
    assert torch.equal(draw(did), plain) and torch.equal(draw_people(did, people), expected)


def test_the_same_cast_goes_on_after_one_run_that_failed(did, people):
    """Inside ``with``: the user makes the picture smaller and tries again."""
    expected = draw_people(did, people)
    with did.apply(people):
        with pytest.raises(torch.OutOfMemoryError), out_of_memory(call, "add_faces", 30):
            draw(did)
        assert torch.equal(draw(did), expected)


def test_recorded_maps_are_those_of_the_run_that_succeeded(did, people):
    def maps(fails: bool) -> torch.Tensor:
        recorder = GateRecorder()
        with did.apply(people, recorder=recorder):
            if fails:
                with pytest.raises(torch.OutOfMemoryError), out_of_memory(call, "add_faces", 20):
                    draw(did)
                recorder.clear()
            draw(did)
        return recorder.maps(64, 64)

    assert torch.equal(maps(fails=True), maps(fails=False))


ENCODING = {
    "in CLIP": lambda did: (did.photos.clip_vision, "forward"),
    "while CLIP is moved": lambda did: (did.photos.clip_vision, "to"),
    "in the face encoder": lambda did: (did.saa.face_encoder, "forward"),
    "in a network's own float32 copy": lambda did: (photos.FloatNetwork, "__call__"),
}


@pytest.mark.parametrize("place", ENCODING)
def test_encoding_goes_on_afterwards_with_the_same_bits(did, people, place):
    with pytest.raises(torch.OutOfMemoryError, match=MESSAGE), out_of_memory(*ENCODING[place](did)):
        did.encode(draw_portrait(0))
    again = did.encode(draw_portrait(0))
    assert torch.equal(again.tokens, people[0].tokens) and torch.equal(again.uncond_tokens, people[0].uncond_tokens)


def test_editing_goes_on_afterwards(did, people):
    expected = did.edit(people[0], "a happy expression, front view")
    with pytest.raises(torch.OutOfMemoryError), out_of_memory(did.motion.reconfigurator, "forward"):
        did.edit(people[0], "a happy expression, front view")
    assert torch.equal(did.edit(people[0], "a happy expression, front view").tokens, expected.tokens)


def test_a_second_pass_that_fails_gives_back_what_was_applied(did, people):
    picture, how = draw_portrait(0).resize((128, 128)), RefineOptions(size=64, mend=True)
    expected = draw_people(did, people)
    with did.apply(people):
        with pytest.raises(torch.OutOfMemoryError), out_of_memory(did.pipe.vae, "decode"):
            did.refine(picture, people, "a person", how, steps=2)
        assert torch.equal(draw(did), expected)


@pytest.mark.parametrize(
    "arguments, owner, name",
    [
        (["encode", "anna.png", "--stand-in"], encode, "clip_pixels"),
        (["generate", "--stand-in", "--steps", "1", "--size", "64x64"], lora.FusedLoRA, "_add"),
    ],
)
def test_the_command_line_says_it_in_a_sentence(tmp_path, monkeypatch, capsys, arguments, owner, name):
    from dynamicid_core.command_line import main

    monkeypatch.chdir(tmp_path)
    draw_portrait(0).save("anna.png")
    with out_of_memory(owner, name):
        assert main([*arguments, "-o", "made.safetensors" if "encode" in arguments else "made.png"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: There is not enough memory for this.") and "--device cpu" in said
    assert [path.name for path in tmp_path.iterdir()] == ["anna.png"]
