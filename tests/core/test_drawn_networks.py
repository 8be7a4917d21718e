"""The world's networks are what hosts know: padded, made from a seed, or widened, they compute the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from dynamicid_core.drawn import text
from dynamicid_core.drawn.autoencoder import Autoencoder, taesd_weights
from dynamicid_core.drawn.latents import KINDS, Kind, Latents, scene_of, training_caption
from dynamicid_core.drawn.make import make_dataset
from dynamicid_core.drawn.optimizer import muon_for, orthogonal
from dynamicid_core.drawn.runs import Run
from dynamicid_core.drawn.scene import draw_scene
from dynamicid_core.drawn.teaching import BEGIN, TOKENS, expressions_of, poses_of, spoken, spoken_of_nobody, states_of
from dynamicid_core.drawn.text import caption_ids, caption_states, pooled, state_bias
from dynamicid_core.drawn.train_autoencoder import AutoencoderOptions, train_autoencoder
from dynamicid_core.drawn.train_unet import training_loss
from dynamicid_core.drawn.unet import ldm_names, make_unet, widened, widened_saa
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, SAAOptions

torch.set_num_threads(1)


def small_autoencoder() -> Autoencoder:
    return Autoencoder((4, 4, 8, 8), (0, 1, 1, 1), (4, 4, 8, 8), (1, 0, 1, 1))


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.filterwarnings("ignore")
def test_the_autoencoder_is_taesd_to_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    model = randomised(small_autoencoder())
    model.standardise.running_mean.copy_(torch.tensor([0.3, -1, 2, 0.1]))
    model.standardise.running_var.copy_(torch.tensor([0.5, 2, 1, 3]))
    model.eval()
    tiny = diffusers.AutoencoderTiny().eval()
    weights = {
        f"encoder.layers.{rest}"
        if part == "encoder"
        else f"decoder.layers.{int(rest.partition('.')[0]) - 1}.{rest.partition('.')[2]}": tensor
        for name, tensor in taesd_weights(model).items()
        for part, _, rest in [name.partition(".")]
    }
    tiny.load_state_dict(weights)
    pixels = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents = model.encode(pixels)
        torch.testing.assert_close(tiny.encode(pixels * 2 - 1).latents, latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tiny.decode(latents).sample, model.decode(latents) * 2 - 1, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_widened_unet_computes_the_same() -> None:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    narrow = randomised(make_unet(widths=(32, 64, 64, 64))).eval()
    wide = make_unet(5, widths=(32, 64, 64, 64)).eval()
    wide.load_state_dict(widened(narrow.state_dict()))
    noisy, states, times = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 768), torch.tensor([37, 801])
    with torch.no_grad():
        expected = narrow(noisy, times, encoder_hidden_states=states).sample
        torch.testing.assert_close(
            wide(noisy, times, encoder_hidden_states=states).sample, expected, rtol=1e-3, atol=1e-4
        )
    names = ldm_names(narrow.state_dict())
    assert len(set(names.values())) == len(names)
    assert names["up_blocks.3.attentions.1.transformer_blocks.0.attn2.to_k.weight"] == (
        "output_blocks.7.1.transformer_blocks.0.attn2.to_k.weight"
    )
    assert names["up_blocks.0.upsamplers.0.conv.weight"] == "output_blocks.1.1.conv.weight"
    assert names["down_blocks.0.downsamplers.0.conv.bias"] == "input_blocks.2.0.op.bias"


@pytest.mark.filterwarnings("ignore")
def test_widened_weights_put_the_same_faces_into_a_widened_unet() -> None:
    """Two people in their strips, with the LoRA, the layout boost and the gate as a continuous function."""
    pytest.importorskip("diffusers")
    from dynamicid_core.hosts.diffusers.unet import attach
    from dynamicid_core.training.anchor import new_saa

    torch.manual_seed(0)
    narrow = randomised(make_unet(widths=(32, 64, 64, 64))).eval()
    wide = make_unet(5, widths=(32, 64, 64, 64)).eval()
    wide.load_state_dict(widened(narrow.state_dict()))
    saa = randomised(new_saa(narrow, rank=4)).eval().requires_grad_(False)
    wide_saa = new_saa(wide, rank=4).requires_grad_(False)
    wide_saa.load_state_dict(widened_saa(saa.state_dict()))
    cast = Cast(tuple(Person(Face(torch.randn(1, 4, 768), torch.randn(1, 4, 768), "")) for _ in range(2)))
    noisy, states, times = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 768), torch.tensor([801, 801])
    said = []
    for unet, weights in ((narrow, saa), (wide, wide_saa)):
        with torch.no_grad():
            said.append(unet(noisy, times, encoder_hidden_states=states).sample)
            attach(unet, weights, cast, SAAOptions(gate_threshold=0.0), guided=lambda: True, lora="apart")
            said.append(unet(noisy, times, encoder_hidden_states=states).sample)
    assert (said[1] - said[0]).abs().max() > 0.05  # faces act
    torch.testing.assert_close(said[3], said[1], rtol=1e-3, atol=2e-4)


def encoder_with(layers: int):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=text.VOCABULARY, hidden_size=text.WIDTH, intermediate_size=4 * text.WIDTH, num_hidden_layers=layers,
        num_attention_heads=12, projection_dim=text.WIDTH, bos_token_id=text.START, eos_token_id=text.END,
    )  # fmt: skip
    model = transformers.CLIPTextModel(config).eval()
    known = model.state_dict().keys()
    named = {k if k in known else k.removeprefix("text_model."): v for k, v in text.text_encoder_weights().items()}
    model.load_state_dict({name: tensor for name, tensor in named.items() if name in known})
    return model


def test_states_of_captions_are_those_of_clips_text_model() -> None:
    model = encoder_with(2)  # the others are all alike
    for caption in ("", draw_scene(3).caption(), draw_scene(5, 2).caption()):
        ids = caption_ids(caption)
        with torch.no_grad():
            said = model(torch.tensor([ids + [text.END] * (text.LENGTH - len(ids))]))
        states = caption_states(caption)
        states = np.concatenate((states, np.repeat(states[-1:], text.LENGTH - len(states), 0)))
        np.testing.assert_allclose(said.last_hidden_state[0].numpy(), states, atol=2e-3)
        np.testing.assert_allclose(said.pooler_output[0].numpy(), pooled(caption), atol=2e-3)


def test_the_last_state_counts_for_all_it_stands_for() -> None:
    states = torch.from_numpy(caption_states("a drawing of two people, happy"))
    full = torch.cat((states, states[-1:].expand(text.LENGTH - len(states), -1)))
    query = torch.randn(3, 768, generator=torch.Generator().manual_seed(0)) / 10
    short = (query @ states.T + state_bias()).softmax(-1) @ states
    torch.testing.assert_close(short, (query @ full.T).softmax(-1) @ full, rtol=1e-4, atol=1e-4)


def test_every_caption_has_words_and_room() -> None:
    captions = {training_caption(scene_of(kind, i), i) for kind in KINDS.values() for i in range(150)}
    assert "" in captions and len(captions) > 200
    assert max(len(caption_ids(caption)) for caption in captions) <= text.PLACES
    with pytest.raises(DynamicIDError, match="no word 'elephant'"):
        caption_ids("a drawing of one elephant")


def test_tokens_are_taught_what_texts_say_of_a_photo(tmp_path) -> None:
    photos = make_dataset(tmp_path, (0,), 35, 64).taken
    goals = torch.from_numpy(np.stack([spoken(photo) for photo in photos]))
    assert goals.shape == (35, len(TOKENS), 768)
    assert expressions_of(goals) == [photo.expression for photo in photos]
    assert poses_of(goals) == [photo.pose for photo in photos]
    fixed = [place for place, what in enumerate(TOKENS) if what not in ("expression", "pose")]
    assert (goals[:, fixed] == goals[:1, fixed]).all()  # who it is stays
    nobody = spoken_of_nobody()
    assert (nobody[[what == "" for what in TOKENS]] == caption_states(BEGIN)[-1]).all()
    assert (nobody[TOKENS.index("hat")] == states_of("", 1)[0]).all()


def test_phrases_are_said_by_the_states_of_their_words() -> None:
    said = caption_states(f"{BEGIN}, red square glasses")
    assert (states_of("red square glasses", 2) == said[[8, 9]]).all()
    turned = caption_states(f"{BEGIN}, fully turned to the left")
    assert (states_of("fully turned to the left", 2) == turned[[8, 11]]).all()  # without small words
    bald = states_of("bald", 2)
    assert (bald[0] == bald[1]).all() and not (bald == states_of("", 2)).all()


def test_latents_are_encoded_once_and_kept(tmp_path) -> None:
    model, kind = small_autoencoder(), Kind("one", (1,), 1.0, 10, 4)
    first = Latents(tmp_path, kind, model, 32).of([3, 1])
    assert first.shape == (2, 4, 4, 4) and first.abs().sum() > 0
    torch.testing.assert_close(Latents(tmp_path, kind, randomised(model), 32).of([1, 3]), first.flip(0))


def test_muon_makes_steps_of_equal_directions() -> None:
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix).float())
    assert values.min() > 0.6 and values.max() < 1.3
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3))
    optimizer = muon_for(model, 0.01, ("0.",))
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]
    pixels = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(60):
        loss = (model(pixels) - pixels[..., 2:-2, 2:-2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path) -> None:
    accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True)
    options = AutoencoderOptions(pictures=6, batch=2, crop=64)
    whole = train_autoencoder(tmp_path / "whole", options, accelerator)

    class Cut(Exception):
        pass

    class CutRun(Run):
        def done_step(self, pictures: int, values: dict[str, float], every: int = 100) -> None:
            super().done_step(pictures, values, every)
            self.save()
            if self.step == 2:
                raise Cut

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("dynamicid_core.drawn.train_autoencoder.Run", CutRun)
        train_autoencoder(tmp_path / "cut", options, accelerator)
    resumed = train_autoencoder(tmp_path / "cut", options, accelerator)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, msg=name)


def test_the_loss_of_a_seed_is_one_number_and_teaches() -> None:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = make_unet(widths=(32, 32, 32, 32))
    before = copy.deepcopy(unet.state_dict())
    latents, captions = torch.randn(4, 4, 8, 8), ["", "a drawing of one person", "a drawing of two people", ""]
    losses = [training_loss(unet, latents, captions, 5, 5.0) for _ in range(2)]
    assert losses[0].item() == losses[1].item() != training_loss(unet, latents, captions, 6, 5.0).item()
    losses[0].backward()
    assert all(weight.grad is not None for weight in unet.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
