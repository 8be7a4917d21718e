"""The losses of both stages against naive computation, and the random numbers that they are about."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training as tiny
import torch

from dynamicid_core.training.anchor import anchor_losses
from dynamicid_core.training.batches import row_generator
from dynamicid_core.training.loop import draw_noise, learning_rate
from dynamicid_core.training.losses import NoiseSchedule, mean_square, noise_loss, token_loss
from dynamicid_core.training.reconfigure import reconfigure_losses
from dynamicid_core.training.settings import StageSettings
from dynamicid_core.types import DynamicIDError

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
SIGNAL = np.cumprod(1 - BETAS)


def naive_mean_square(a, b, weights=None) -> float:
    """Row by row, value by value."""
    total = 0.0
    for i, (row_a, row_b) in enumerate(zip(a.double().tolist(), b.double().tolist(), strict=True)):
        flat_a, flat_b = np.ravel(row_a), np.ravel(row_b)
        row = sum((x - y) ** 2 for x, y in zip(flat_a, flat_b, strict=True)) / len(flat_a)
        total += row * (1.0 if weights is None else float(weights[i]))
    return total / len(a)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 3, 4, 5, 7, generator=generator)
    return SimpleNamespace(latents=latents, noise=noise, timesteps=torch.tensor([0, 333, 999]))


def test_a_schedule_comes_from_the_base_scheduler_whatever_its_class():
    diffusers = pytest.importorskip("diffusers")
    for kind in (diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler, diffusers.PNDMScheduler):
        scheduler = kind(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
        )
        schedule = NoiseSchedule.of(scheduler.config)
        assert schedule.prediction == "v_prediction"
        np.testing.assert_allclose(schedule.signal, SIGNAL, rtol=2e-4)


def test_a_schedule_that_predicts_something_else_is_refused():
    with pytest.raises(DynamicIDError, match="predicts 'flow'.*Use another base"):
        NoiseSchedule(torch.ones(3), "flow")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noisy_latents_and_targets_are_those_of_the_formulas(rows, prediction):
    schedule = NoiseSchedule(torch.from_numpy(SIGNAL).float(), prediction)
    noisy = schedule.noisy(rows.latents, rows.noise, rows.timesteps)
    target = schedule.target(rows.latents, rows.noise, rows.timesteps)
    for i, t in enumerate(rows.timesteps.tolist()):
        a, s = math.sqrt(SIGNAL[t]), math.sqrt(1 - SIGNAL[t])
        x, e = rows.latents[i].numpy(), rows.noise[i].numpy()
        wanted = {"epsilon": e, "v_prediction": a * e - s * x, "sample": x}[prediction]
        np.testing.assert_allclose(noisy[i], a * x + s * e, atol=1e-5)
        np.testing.assert_allclose(target[i], wanted, atol=1e-5)


@pytest.mark.parametrize("prediction, divisor", [("epsilon", lambda r: r), ("v_prediction", lambda r: r + 1)])
def test_min_snr_weights(rows, prediction, divisor):
    weights = NoiseSchedule(torch.from_numpy(SIGNAL).float(), prediction).min_snr_weights(rows.timesteps, 5.0)
    ratios = [SIGNAL[t] / (1 - SIGNAL[t]) for t in rows.timesteps.tolist()]
    np.testing.assert_allclose(weights, [min(r, 5.0) / divisor(r) for r in ratios], rtol=1e-3)
    assert weights[0] < 0.01 or prediction == "v_prediction"  # hardly any noise: hardly any weight


def test_min_snr_weights_at_pure_noise_are_finite():
    schedule = NoiseSchedule(torch.tensor([0.5, 0.0]), "epsilon")
    assert schedule.min_snr_weights(torch.tensor([1]), 5.0).tolist() == [1.0]


@pytest.mark.parametrize("dtype, within", [(torch.float32, 1e-6), (torch.float16, 1e-3)])
def test_mean_square_against_a_double_loop(rows, dtype, within):
    a, b, weights = rows.latents.to(dtype), rows.noise.to(dtype), torch.tensor([1.0, 0.5, 2.0])
    for chosen in (None, weights):
        found = mean_square(a, b, chosen)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(naive_mean_square(a, b, chosen), rel=within)


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_the_anchor_loss_is_about_what_the_model_is_given(gamma):
    batch, times = tiny.anchor_batch(3), torch.tensor([1, 400, 900])
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(2))
    seen = []

    def model(*inputs):
        seen.append(inputs)
        return 0.5 * inputs[0]

    found = anchor_losses(model, batch, noise, times, tiny.SCHEDULE, gamma)["loss"]
    noisy = tiny.SCHEDULE.noisy(batch.latents, noise, times)
    weights = tiny.SCHEDULE.min_snr_weights(times, gamma) if gamma else None
    assert float(found) == pytest.approx(naive_mean_square(0.5 * noisy, noise, weights), rel=1e-5)
    assert torch.equal(seen[0][0], noisy)
    assert [value is given for value, given in zip(seen[0][2:5], (batch.text, batch.identity, batch.clip), strict=True)]


def test_places_of_a_picture_count_as_told():
    a, b = torch.zeros(2, 4, 2, 2), torch.ones(2, 4, 2, 2)
    b[1] = 2
    places = torch.tensor([[2.0, 0.0], [1.0, 1.0]])[None, None]
    b[:, :, 0, 1] = 50  # which counts nothing
    assert float(mean_square(a, b, places=places)) == pytest.approx((1 + 4) / 2)
    assert float(mean_square(a, b, torch.tensor([1.0, 0.0]), places)) == pytest.approx(1 / 2)


class Pretender(torch.nn.Module):
    """A UNet whose words depend on everything that it is told."""

    calls = 0

    def forward(self, noisy, timesteps, text, tokens, pooled=None, sizes=None):
        self.calls += 1
        return (
            noisy * (1 + tokens.mean((1, 2))[:, None, None, None]) + text.mean() + timesteps[:, None, None, None] / 1e3
        )


def reconfigure(weights, unet):
    batch, model = tiny.reconfigure_batch(rows=2, k=3), tiny.motion_model()
    noise, times = draw_noise(batch.latents, seed=0, number=0, process=0, timesteps=1000)
    losses = reconfigure_losses(model, unet, batch, noise, times, tiny.SCHEDULE, *weights)
    losses = {name: loss.detach() for name, loss in losses.items()}
    model.load_state_dict(tiny.motion_model().state_dict())  # the same statistics before each pass
    with torch.no_grad():
        edited = model(
            batch.source_tokens, batch.source_landmarks, batch.target_landmarks, batch.source_text, batch.target_text
        )
    return losses, batch, edited, noise, times


def test_reconfigure_losses_against_a_loop_over_sources_and_targets():
    losses, batch, edited, noise, times = reconfigure((1.0, 0.5), Pretender())
    dfm = ldc = 0.0
    for b in range(2):
        for k in range(3):
            tokens, wanted = edited[3 * b + k][None], batch.target_tokens[b, k][None]
            dfm += naive_mean_square(tokens, wanted) / 6
            t = times[b, k][None]
            noisy = tiny.SCHEDULE.noisy(batch.latents[b, k][None], noise[b, k][None], t)
            said = [Pretender()(noisy, t, batch.prompt[None], who) for who in (tokens, wanted)]
            ldc += naive_mean_square(*said) / 6
    assert float(losses["dfm"]) == pytest.approx(dfm, rel=1e-5)
    assert float(losses["ldc"]) == pytest.approx(ldc, rel=1e-4)
    assert float(losses["loss"]) == pytest.approx(dfm + 0.5 * ldc, rel=1e-5)


@pytest.mark.parametrize("weights, left, calls", [((1.0, 0.0), "dfm", 0), ((0.0, 1.0), "ldc", 2)])
def test_a_loss_that_is_switched_off_is_not_computed(weights, left, calls):
    unet = Pretender()
    losses, *_ = reconfigure(weights, unet)
    assert losses.keys() == {"loss", left}
    assert float(losses["loss"]) == float(losses[left])
    assert unet.calls == calls


def test_no_gradient_goes_through_what_is_aimed_at():
    edited, encoded = (torch.randn(2, 4, 8, requires_grad=True) for _ in range(2))
    noise_loss(edited, encoded).backward()
    assert edited.grad is not None
    assert encoded.grad is None
    assert float(token_loss(edited, edited)) == 0


def test_several_people_in_one_pass_are_each_one_by_itself():
    """The IMR takes n sources with K targets each, and none acts on another."""
    model = tiny.motion_model().IMR.eval()
    g = torch.Generator().manual_seed(6)
    tokens, source, target = (torch.randn(*s, generator=g) for s in ((2, 4, tiny.TEXT), (2, 32), (6, 32)))
    together = model(tokens, source[:, :16], target[:, :16], source[:, 16:], target[:, 16:])
    for i in range(2):
        s, t = source[i : i + 1], target[3 * i : 3 * i + 3]
        alone = model(tokens[i : i + 1], s[:, :16], t[:, :16], s[:, 16:], t[:, 16:])
        torch.testing.assert_close(together[3 * i : 3 * i + 3], alone, atol=1e-5, rtol=0)


def test_noise_of_a_row_does_not_depend_on_the_process_that_has_it():
    latents = torch.zeros(4, 3, 4, 8, 8)
    noise, times = draw_noise(latents, seed=7, number=5, process=0, timesteps=1000)
    parts = [draw_noise(latents[:2], seed=7, number=5, process=process, timesteps=1000) for process in (0, 1)]
    assert torch.equal(noise, torch.cat([part[0] for part in parts]))
    assert torch.equal(times, torch.cat([part[1] for part in parts]))
    assert times.shape == (4, 3)
    assert len(noise.unique()) > 0.9 * noise.numel()
    other = draw_noise(latents, seed=7, number=6, process=0, timesteps=1000)[0]
    assert not torch.equal(noise, other)
    assert torch.equal(
        noise[3, 0, 0, 0, :3], torch.randn(latents.shape[1:], generator=row_generator(7, 5, 3))[0, 0, 0, :3]
    )


def test_the_learning_rate_warms_up_and_falls():
    settings = StageSettings(steps=110, warmup=10, learning_rate=1.0, schedule="cosine")
    assert [learning_rate(settings, step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert learning_rate(settings, 60) == pytest.approx(0.5)
    assert learning_rate(settings, 109) < 1e-3
    constant = StageSettings(steps=110, learning_rate=1.0)
    assert {learning_rate(constant, step) for step in range(110)} == {1.0}
