"""The loop: it goes on to the same bits, keeps what it should, and stops with a sentence."""

from __future__ import annotations

import pytest
import tiny_training as tiny
import torch

from dynamicid_core.files import read_safetensors
from dynamicid_core.training.loop import Stage, make_accelerator
from dynamicid_core.training.settings import StageSettings
from dynamicid_core.training.state import trained_tensors
from dynamicid_core.types import DynamicIDError

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")


def stage_of(name: str) -> tuple[Stage, tiny.Rows]:
    if name == "anchor":
        return tiny.anchor_stage(), tiny.Rows()
    return tiny.reconfigure_stage(tiny.face_unet()), tiny.Rows(make=tiny.reconfigure_batch)


def run(name: str, folder, resume: bool = False, batches=None, **settings):
    """A stage run to its last step: its summary and trainer."""
    stage, rows = stage_of(name)
    trainer = tiny.trainer(stage, folder, **settings)
    return trainer.train(batches or rows, resume=resume, progress=False), trainer


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trained_tensors(trainer.model.state_dict()).items()}


@pytest.mark.parametrize("name", ["anchor", "reconfigure"])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, name):
    """Six steps against three and three: weights, running statistics, their average, the optimiser's moments."""
    how = {"ema_decay": 0.9, "accumulation": 2, "warmup": 2, "schedule": "cosine", "learning_rate": 1e-2}
    whole, straight = run(name, tmp_path / "straight", **how)
    # Stopped by the power: the first half knew that there would be six steps.
    stopped = pytest.raises(RuntimeError, match="power")
    with stopped:
        run(name, tmp_path / "halved", batches=power_cut(stage_of(name)[1], after=8), **how)
    rest, halved = run(name, tmp_path / "halved", resume=True, **how)
    assert (whole.started_at, rest.started_at, rest.steps) == (0, 3, 6)
    assert weights(straight).keys() == weights(halved).keys()
    assert all(torch.equal(t, weights(halved)[n]) for n, t in weights(straight).items())
    assert all(torch.equal(a, b) for a, b in zip(straight.average.shadow, halved.average.shadow, strict=True))
    moments = [trainer.optimizer.state_dict()["state"] for trainer in (straight, halved)]
    assert all(torch.equal(v, moments[1][p][k]) for p, state in moments[0].items() for k, v in state.items())
    files = [read_safetensors(summary.checkpoint)[0] for summary in (whole, rest)]
    assert all(torch.equal(tensor, files[1][n]) for n, tensor in files[0].items())


def power_cut(rows, after: int):
    """Batches that end in an error."""

    def batches(start, stop):
        for number, batch in enumerate(rows(start, stop), start):
            if number == after:
                raise RuntimeError("power")
            yield batch

    return batches


def test_training_moved_and_the_checkpoint_is_the_average(tmp_path):
    summary, trainer = run("anchor", tmp_path, ema_decay=0.5, learning_rate=1e-2)
    before, after = trained_tensors(tiny.anchor_model().state_dict()), weights(trainer)
    saved, metadata = read_safetensors(summary.checkpoint)
    live = dict(
        zip((n for n, p in trainer.model.named_parameters() if p.requires_grad), trainer.average.shadow, strict=True)
    )
    assert metadata["step"] == "6"
    assert saved.keys() == after.keys()
    assert all(not torch.equal(after[name], before[name]) for name in after)
    assert all(torch.equal(saved[name], live[name]) for name in saved)
    assert not torch.equal(saved["SAA_module.0.to_q_lora.up.weight"], after["SAA_module.0.to_q_lora.up.weight"])


def test_the_average_is_that_of_the_formula(tmp_path):
    """Young averages forget faster: (1 + n) / (10 + n) until the decay is reached."""
    name = "SAA_module.1.to_k_ip.weight"
    found = []

    def watching(start, stop):
        for batch in tiny.Rows()(start, stop):
            found.append(dict(trainer.model.named_parameters())[name].detach().clone())
            yield batch

    trainer = tiny.trainer(tiny.anchor_stage(), tmp_path, ema_decay=0.3, learning_rate=1e-2)
    trainer.train(watching, progress=False)
    found.append(dict(trainer.model.named_parameters())[name].detach())
    average = found[0]
    for step, value in enumerate(found[1:], 1):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    names = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
    torch.testing.assert_close(trainer.average.shadow[names.index(name)], average)


def test_accumulated_batches_are_one_larger_batch(tmp_path, monkeypatch):
    """Two rows twice to a step, or four at once; under plain descent, as Adam makes steps of rounding where a gradient is 0."""
    monkeypatch.setattr(torch.optim, "AdamW", tiny.plain_descent)

    def pairs(start, stop):
        for number in range(start, stop):
            yield tiny.anchor_batch(2, number=number // 2, first=2 * (number % 2))

    def fours(start, stop):
        for number in range(start, stop):
            yield tiny.anchor_batch(4, number=number)

    def same_noise(model, batch, noise, timesteps):
        noise, timesteps = batch.latents.flip(-1), torch.full((len(batch.latents),), 400)
        return tiny.losses(model, batch, noise, timesteps)

    results = []
    for name, batches, parts in (("pairs", pairs, 2), ("fours", fours, 1)):
        stage = Stage("anchor", "saa.safetensors", tiny.anchor_model(perturbed=True), same_noise, tiny.write)
        trainer = tiny.trainer(stage, tmp_path / name, steps=2, accumulation=parts, learning_rate=0.1)
        trainer.train(batches, progress=False)
        results.append(weights(trainer))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=1e-6, rtol=0, msg=name)


def test_old_checkpoints_go_and_the_newest_lies_in_the_output_folder(tmp_path):
    summary, _ = run("anchor", tmp_path, save_every=1, keep=2, steps=4)
    steps = sorted(path.name for path in (tmp_path / "anchor").glob("step-*"))
    assert steps == ["step-000003", "step-000004"]
    assert summary.checkpoint == tmp_path / "saa.safetensors"
    assert summary.checkpoint.read_bytes() == (tmp_path / "anchor/step-000004/saa.safetensors").read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_a_run_that_is_there_is_neither_overwritten_nor_continued_by_accident(tmp_path):
    run("anchor", tmp_path, steps=3)
    with pytest.raises(DynamicIDError, match="holds a run of 3 steps. Go on with --resume, or choose another output"):
        run("anchor", tmp_path, steps=3)
    summary, _ = run("anchor", tmp_path, resume=True, steps=3)
    assert summary.started_at == summary.steps == 3


@pytest.mark.parametrize(
    "change, says", [({"ema_decay": 0.9}, "without averaged weights.*Set ema_decay as it was"), ({}, "another form")]
)
def test_a_run_of_another_kind_is_not_continued(tmp_path, change, says):
    run("anchor", tmp_path, steps=3)
    stage = tiny.anchor_stage(tiny.anchor_model(rank=4 if change else 2))
    with pytest.raises(DynamicIDError, match=says):
        tiny.trainer(stage, tmp_path, **change).train(tiny.Rows(), resume=True, progress=False)


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_checkpoint(tmp_path):
    def broken(start, stop):
        for number, batch in enumerate(tiny.Rows()(start, stop)):
            yield batch if number < 3 else batch.to("cpu", torch.float32)._map(lambda t: t * float("nan"))

    with pytest.raises(DynamicIDError, match="no longer a number. Lower the learning rate.*--resume") as error:
        run("anchor", tmp_path, batches=broken, save_every=2)
    assert str(error.value).count(". ") == 1
    assert [path.name for path in (tmp_path / "anchor").glob("step-*")] == ["step-000002"]
    saved, _ = read_safetensors(tmp_path / "saa.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


def test_a_full_device_says_what_to_lower(tmp_path):
    def losses(model, batch, noise, timesteps):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    stage = Stage("anchor", "saa.safetensors", tiny.anchor_model(), losses, tiny.write)
    with pytest.raises(DynamicIDError, match="no memory left. Lower batch .*gradient_checkpointing, or lower size"):
        tiny.trainer(stage, tmp_path).train(tiny.Rows(), progress=False)


def test_losses_and_pictures_go_to_the_tracker(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from PIL import Image

    drawn = []

    def draw(tensors, step):
        drawn.append(step)
        return Image.new("RGB", (8, 8), (255, 0, 0))

    stage = Stage("anchor", "saa.safetensors", tiny.anchor_model(), tiny.losses, tiny.write, draw)
    trainer = tiny.trainer(stage, tmp_path, tracker="tensorboard", log_every=2)
    every = StageSettings().validation.every
    trainer.train(tiny.Rows(), progress=False)
    assert drawn == [6]  # at the end at the latest
    assert every > 6
    assert Image.open(tmp_path / "anchor/validation/step-000006.png").getpixel((0, 0)) == (255, 0, 0)
    events = event_accumulator.EventAccumulator(str(tmp_path / "anchor"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    assert events.Tags()["images"] == ["validation"]


def test_what_the_machine_lacks_is_said_before_anything_starts(tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(DynamicIDError, match="fp16, which needs a GPU"):
            make_accelerator(StageSettings(mixed_precision="fp16"), tmp_path)
    import importlib.util

    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(DynamicIDError, match="tracker wandb is not installed: pip install wandb"):
            make_accelerator(StageSettings(tracker="wandb"), tmp_path)
