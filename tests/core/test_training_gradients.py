"""What trains, what does not, and that training attends as inference does."""

from __future__ import annotations

import pytest
import tiny_training as tiny
import torch

from dynamicid_core.networks.saa import LORA_TARGETS
from dynamicid_core.training.anchor import anchor_losses, new_saa
from dynamicid_core.training.face_unet import FaceUNet
from dynamicid_core.training.loop import draw_noise
from dynamicid_core.training.losses import NoiseSchedule
from dynamicid_core.training.reconfigure import reconfigure_losses
from dynamicid_core.types import Cast, DynamicIDError, Face, Person

pytest.importorskip("diffusers")
host = pytest.importorskip("dynamicid_core.hosts.diffusers")


def backward(model, batch, schedule=tiny.SCHEDULE) -> torch.Tensor:
    noise, times = draw_noise(batch.latents, seed=0, number=0, process=0, timesteps=1000)
    loss = anchor_losses(model, batch, noise, times, schedule)["loss"]
    loss.backward()
    return loss.detach()


def moved(model) -> set[str]:
    """Names of parameters whose gradient is not zero everywhere."""
    return {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}


# --- the attention ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sd15", "sdxl"])
def test_training_attends_as_the_adapter_for_inference(form):
    """The same UNet, weights and people, through ``attach`` and through training's processors."""
    sdxl = form == "sdxl"
    base, other = (tiny.sdxl_unet() if sdxl else tiny.unet() for _ in range(2))
    model, batch = tiny.anchor_model(base, perturbed=True).requires_grad_(False), tiny.anchor_batch(3, sdxl=sdxl)
    times = torch.tensor([3, 500, 990])
    trained = model(batch.latents, times, batch.text, batch.identity, batch.clip, batch.pooled, batch.sizes)
    tokens = model.proj_module(batch.identity, batch.clip)
    added = {"text_embeds": batch.pooled, "time_ids": batch.sizes} if sdxl else None
    for row in range(3):  # the adapter has one cast for all rows
        face = Face(tokens[row : row + 1], torch.zeros_like(tokens[:1]), "test")
        attached = host.attach(other, model.SAA_module, Cast((Person(face),)), guided=lambda: False, lora="apart")
        with torch.no_grad():
            of_all = other(batch.latents, times, encoder_hidden_states=batch.text, added_cond_kwargs=added).sample
        attached.remove()
        torch.testing.assert_close(trained[row], of_all[row], atol=2e-5, rtol=0)
    assert (trained[0] - of_all[0]).abs().max() > 1e-3  # of another person: faces act


def test_a_fused_lora_is_the_same_as_one_beside_the_weights():
    beside, base, batch = tiny.anchor_model(perturbed=True), tiny.unet(), tiny.anchor_batch()
    host.FusedLoRA(base, beside.SAA_module, 1.0)
    fused = FaceUNet(base, beside.SAA_module, lora=False)
    tokens, times = torch.randn(2, 4, tiny.TEXT), torch.tensor([5, 800])
    inputs = (batch.latents, times, batch.text, tokens)
    torch.testing.assert_close(fused(*inputs), beside.faces(*inputs), atol=1e-5, rtol=0)


def test_a_base_without_added_conditions_in_the_cache_is_refused():
    with pytest.raises(DynamicIDError, match="added conditions.*train cache"):
        backward(tiny.anchor_model(tiny.sdxl_unet()), tiny.anchor_batch())


# --- anchoring ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sd15", "sdxl"])
def test_anchoring_trains_the_face_encoder_and_saa_and_nothing_else(form):
    sdxl = form == "sdxl"
    model = tiny.anchor_model(tiny.sdxl_unet() if sdxl else tiny.unet(), perturbed=True)
    before = {name: p.detach().clone() for name, p in model.faces.unet.named_parameters()}
    backward(model, tiny.anchor_batch(sdxl=sdxl))
    names = {name for name, _ in model.named_parameters()}
    sites = range(len(model.SAA_module))
    wanted = {f"SAA_module.{s}.{t}_lora.{p}.weight" for s in sites for t in LORA_TARGETS for p in ("down", "up")}
    wanted |= {f"SAA_module.{s}.to_{x}_ip.weight" for s in sites if s % 2 for x in "kv"}
    wanted |= {name for name in names if name.startswith("proj_module.")}
    assert moved(model) == wanted
    assert {n for n, p in model.named_parameters() if p.requires_grad} == wanted
    assert all(p.grad is None for p in model.faces.unet.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.faces.unet.named_parameters())


def test_the_beginning_changes_nothing_but_faces_and_its_up_weights_move_first():
    base, model = tiny.unet(), tiny.anchor_model()
    modules = dict(base.named_modules())
    for block, site in zip(model.faces._applied.layout.blocks, model.SAA_module.cross_sites, strict=True):
        assert torch.equal(site.to_k_ip.weight, modules[f"{block.name}.attn2.to_k"].weight)
        assert torch.equal(site.to_v_ip.weight, modules[f"{block.name}.attn2.to_v"].weight)
    backward(model, tiny.anchor_batch())
    lora = {name for name in moved(model) if "_lora." in name}
    assert lora == {n for n, _ in model.named_parameters() if n.endswith("_lora.up.weight")}


def test_every_row_is_its_own_person():
    """Another person in the second row changes nothing in the first."""
    model, batch = tiny.anchor_model(perturbed=True), tiny.anchor_batch()
    times = torch.tensor([100, 100])
    other = batch.identity.roll(1, 0)
    changed = torch.stack((batch.identity[0], other[1]))
    with torch.no_grad():
        a, b = (model(batch.latents, times, batch.text, who, batch.clip) for who in (batch.identity, changed))
    torch.testing.assert_close(a[0], b[0], atol=1e-6, rtol=0)
    assert not torch.allclose(a[1], b[1], atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients():
    plain, saving, batch = tiny.anchor_model(perturbed=True), tiny.anchor_model(perturbed=True), tiny.anchor_batch()
    saving.faces.unet.enable_gradient_checkpointing()
    backward(plain, batch)
    backward(saving, batch)
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-7, rtol=1e-5, msg=name)


def test_half_precision_keeps_gradients_in_single():
    """A UNet in bfloat16 under autocast, as on an accelerator; weights that train stay in float32."""
    model, batch = tiny.anchor_model(tiny.unet().bfloat16(), perturbed=True), tiny.anchor_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        noise, times = draw_noise(batch.latents, seed=0, number=0, process=0, timesteps=1000)
        loss = tiny.losses(model, batch, noise, times)["loss"]
    loss.backward()
    exact = backward(tiny.anchor_model(perturbed=True), batch)
    assert float(loss) == pytest.approx(float(exact), rel=0.02)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.grad.dtype for p in trained} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in trained)


def test_a_base_that_predicts_velocity_is_trained_on_velocity():
    batch, schedule = tiny.anchor_batch(), NoiseSchedule(tiny.SCHEDULE.signal, "v_prediction")
    noise, times = draw_noise(batch.latents, seed=0, number=0, process=0, timesteps=1000)
    model = tiny.anchor_model(perturbed=True)
    loss = backward(model, batch, schedule)
    with torch.no_grad():
        said = model(schedule.noisy(batch.latents, noise, times), times, batch.text, batch.identity, batch.clip)
    a = schedule.signal[times][:, None, None, None]
    velocity = a.sqrt() * noise - (1 - a).sqrt() * batch.latents
    assert float(loss) == pytest.approx(float((said - velocity).square().mean()), rel=1e-5)
    assert float(loss) != pytest.approx(float((said - noise).square().mean()), rel=1e-2)


def test_a_base_that_the_weights_do_not_fit_is_refused_by_name():
    with pytest.raises(DynamicIDError, match="UNet2DConditionModel with 4 cross attentions.*made for"):
        FaceUNet(tiny.unet(), new_saa(tiny.sdxl_unet(), 4))


def test_a_base_without_cross_attention_is_refused():
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None}
    with pytest.raises(DynamicIDError, match="no cross attention; DynamicID needs"):
        new_saa(tiny.unet(**plain), 4)


# --- reconfiguration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_reconfiguration_trains_the_imr_and_the_key_point_encoder_and_nothing_else(weights):
    model, unet, batch = tiny.motion_model(), tiny.face_unet(), tiny.reconfigure_batch()
    noise, times = draw_noise(batch.latents, seed=0, number=0, process=0, timesteps=1000)
    statistics = {name: b.clone() for name, b in model.named_buffers() if "running" in name}
    reconfigure_losses(model, unet, batch, noise, times, tiny.SCHEDULE, *weights)["loss"].backward()
    # A convolution's bias goes out again in the normalisation that follows: its gradient is 0 but for rounding.
    biases = {name for name, _ in model.named_parameters() if name.endswith("conv_block.0.bias")}
    assert moved(model) | biases == {name for name, _ in model.named_parameters()}
    assert all(p.grad is None for p in unet.parameters())
    assert all(not torch.equal(b, statistics[name]) for name, b in model.named_buffers() if name in statistics)


def test_l_ldc_reaches_the_tokens_through_every_site():
    """Without a site's faces the gradient at the tokens is another one."""
    unet, batch = tiny.face_unet(), tiny.anchor_batch()
    tokens = torch.randn(2, 4, tiny.TEXT, requires_grad=True)
    found = []
    for silent in (None, *(p.site for p in unet.unet.attn_processors.values() if p.site.is_cross)):
        kept = None if silent is None else silent.to_v_ip.weight.clone()
        if silent is not None:
            silent.to_v_ip.weight.zero_()
        said = unet(batch.latents, torch.tensor([200, 700]), batch.text, tokens)
        found.append(torch.autograd.grad(said.square().mean(), tokens)[0])
        if silent is not None:
            silent.to_v_ip.weight.copy_(kept)
    assert len(found) == 5
    assert all(not torch.allclose(found[0], other, rtol=1e-3, atol=0) for other in found[1:])
