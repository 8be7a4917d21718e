"""Any picture becomes RGB; crops; what CLIP sees; masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dynamicid_core.pictures import clip_crop, clip_pixels, crop_square, read_mask, to_rgb
from dynamicid_core.types import DynamicIDError

RAMP = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY = RAMP[..., 0]


@pytest.mark.parametrize(
    "image, expected",
    [
        (RAMP, RAMP),
        (RAMP[None], RAMP),
        (RAMP.astype(np.uint16) * 257, RAMP),
        (RAMP.astype(np.int32) * 257, RAMP),
        (RAMP / 255, RAMP),
        ((RAMP / 255).astype(np.float16), RAMP),
        (torch.from_numpy(RAMP).float() / 255, RAMP),
        ((torch.from_numpy(RAMP).float() / 255)[None], RAMP),
        (torch.from_numpy(RAMP), RAMP),
        (GREY, np.stack([GREY] * 3, -1)),
        (GREY[..., None], np.stack([GREY] * 3, -1)),
        (GREY > 99, np.stack([(GREY > 99) * np.uint8(255)] * 3, -1)),
        (np.dstack([RAMP, np.full_like(GREY, 255)]), RAMP),
        (np.dstack([RAMP, np.zeros_like(GREY)]), np.full_like(RAMP, 255)),
        (np.dstack([GREY, np.zeros_like(GREY)]), np.full_like(RAMP, 255)),
        (Image.fromarray(RAMP), RAMP),
        (Image.fromarray(GREY), np.stack([GREY] * 3, -1)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, -1)),
        (Image.fromarray((GREY / 255).astype(np.float32)), np.stack([GREY] * 3, -1)),
        (Image.fromarray(np.dstack([RAMP, np.zeros_like(GREY)]), "RGBA"), np.full_like(RAMP, 255)),
        (Image.fromarray(np.full_like(RAMP, 255) - RAMP).convert("CMYK"), np.full_like(RAMP, 255) - RAMP),
    ],
)
def test_any_picture_becomes_rgb(image, expected):
    rgb = to_rgb(image)
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.array_equal(rgb, expected)


def test_floats_are_clipped_and_rounded_as_hosts_give_them():
    rgb = to_rgb(np.full((20, 20, 3), 1.2))
    assert (rgb == 255).all()
    levels = torch.arange(256).float().div(255).view(16, 16, 1)  # division and back must give the same level
    assert np.array_equal(to_rgb(levels)[..., 0].ravel(), np.arange(256))


def test_a_transparent_palette_and_half_transparency_go_on_white(tmp_path):
    half = np.dstack([np.zeros_like(RAMP), np.full_like(GREY, 128)])
    assert np.abs(to_rgb(half).astype(int) - 127).max() <= 1
    palette = Image.fromarray(GREY // 128).convert("P")
    palette.save(tmp_path / "clear.png", transparency=0)
    rgb = to_rgb(tmp_path / "clear.png")
    assert (rgb[GREY < 128] == 255).all()


@pytest.mark.parametrize("orientation, undo", [(3, 2), (6, 3), (8, 1)])
def test_a_camera_held_sideways_is_put_upright(tmp_path, orientation, undo):
    photo = np.kron(RAMP, np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo).save(tmp_path / "photo.png", exif=exif)
    rgb = to_rgb(str(tmp_path / "photo.png"))
    assert np.array_equal(rgb, np.rot90(photo, undo))
    with Image.open(tmp_path / "photo.png") as opened:
        assert np.array_equal(to_rgb(opened), rgb)


def test_16_bit_files_keep_their_levels(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(to_rgb(tmp_path / "deep.png")[..., 1], GREY)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((1, 1, 3), np.uint8), "1x1 px is too small"),
        (np.zeros((15, 900, 3), np.uint8), "900x15 px is too small"),
        (np.zeros((0, 0, 3), np.uint8), "0x0 px is too small"),
        (np.zeros((3, 64, 64), np.uint8), "shape .3, 64, 64.; expected one photo"),
        (np.zeros((2, 64, 64, 3), np.uint8), "expected one photo"),
        (np.full((64, 64, 3), np.nan), "NaN"),
        (np.full((64, 64, 3), -5), "from -5 to -5"),
        (np.full((64, 64, 3), 70000), "from 70000 to 70000"),
        (np.full((64, 64, 3), 1j), "type complex128"),
    ],
)
def test_pictures_that_cannot_be_used_say_why(image, message):
    with pytest.raises(DynamicIDError, match=message):
        to_rgb(image)


def test_files_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    with pytest.raises(DynamicIDError, match="There is no photo .*nothing.png"):
        to_rgb(tmp_path / "nothing.png")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(DynamicIDError, match="text.jpg cannot be read"):
        to_rgb(tmp_path / "text.jpg")
    Image.fromarray(np.kron(RAMP, np.ones((8, 8, 1), np.uint8))).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DynamicIDError, match="cut.png cannot be read"):
        to_rgb(tmp_path / "cut.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DynamicIDError, match="whole.png is too large"):
        to_rgb(tmp_path / "whole.png")


def test_a_mask_is_white_where_the_person_may_be(tmp_path):
    half = np.zeros((8, 12), np.uint8)
    half[:, 6:] = 255
    for name, picture in {
        "grey.png": Image.fromarray(half),
        "colour.png": Image.fromarray(np.stack([half] * 3, -1)),
        "deep.png": Image.fromarray(half.astype(np.uint16) * 257),
        "painted.png": Image.fromarray(np.dstack([np.full((8, 12, 3), 255, np.uint8), half]), "RGBA"),
    }.items():
        picture.save(tmp_path / name)
        mask = read_mask(tmp_path / name)
        assert mask.dtype == torch.float32 and torch.equal(mask[0], torch.from_numpy(half / 255).float()), name
    Image.fromarray(np.full((4, 4), 51, np.uint8)).save(tmp_path / "soft.png")
    assert torch.allclose(read_mask(tmp_path / "soft.png"), torch.tensor(0.2))


def test_masks_lie_as_photos_do(tmp_path):
    """A mask painted over a photo that the camera tagged as turned is turned with it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).convert("L").save(tmp_path / "mask.png", exif=exif)
    assert read_mask(tmp_path / "mask.png").shape == (1, 32, 24)


def test_masks_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(DynamicIDError, match="There is no mask .*gone.png"):
        read_mask(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DynamicIDError, match="The mask .*text.png cannot be read"):
        read_mask(tmp_path / "text.png")


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (768, 1024), (1024, 768), (225, 300), (37, 501), (499, 333)])
def test_clip_gets_what_hugging_faces_processor_gives(size):
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # before transformers 5 the processor used PIL anyway
        from transformers import CLIPImageProcessor as Processor

    photo = np.random.default_rng(size[1]).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Processor()(Image.fromarray(photo), return_tensors="pt")["pixel_values"]
    pixels = clip_pixels(photo)
    assert pixels.shape == (1, 3, 224, 224) and pixels.dtype == torch.float32
    assert (pixels - expected).abs().max() < 1e-5
    # The cropped picture passes unchanged, whatever does the same again.
    assert torch.equal(clip_pixels(clip_crop(photo)), pixels)


@pytest.mark.parametrize("size", [(16, 300_000), (300_000, 16), (100, 1700)])
def test_pictures_much_longer_than_wide_take_no_more_than_their_middle(size):
    """All of it, enlarged as CLIP wants its shorter side, would be 4 million pixels long."""
    photo = np.zeros((*size, 3), dtype=np.uint8)
    photo[tuple(slice(n // 2 - 8, n // 2 + 8) for n in size)] = 255
    crop = clip_crop(photo)
    assert crop.shape == (224, 224, 3) and crop[112, 112].min() > 250


def test_what_is_cut_off_long_pictures_would_not_be_seen():
    photo = np.random.default_rng(0).integers(0, 256, (40, 40 * 16, 3), dtype=np.uint8)
    longer = np.concatenate([np.zeros_like(photo), photo, np.zeros_like(photo)], axis=1)
    assert np.array_equal(clip_crop(longer), clip_crop(photo))


@pytest.mark.parametrize(
    "box, factor, place",
    [
        ((100, 80, 140, 120), 1.0, (100, 80, 140, 120)),
        ((100, 80, 140, 120), 2.0, (80, 60, 160, 140)),
        ((100, 80, 120, 120), 1.5, (80, 70, 140, 130)),  # the longer side counts
        ((0, 0, 40, 40), 2.0, (0, 0, 80, 80)),  # moved in
        ((-20, 150, 40, 210), 1.5, (0, 110, 90, 200)),
        ((270, 100, 310, 140), 2.0, (220, 80, 300, 160)),
        ((100, 80, 140, 120), 50.0, (20, 0, 220, 200)),  # shrunk to the picture
    ],
)
def test_crops_are_square_and_inside_the_picture(box, factor, place):
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    crop, got = crop_square(picture, box, factor)
    assert got == place
    x0, y0, x1, y1 = place
    assert np.array_equal(crop, picture[y0:y1, x0:x1]) and crop.shape[0] == crop.shape[1]


def test_a_crop_needs_a_sensible_factor():
    for factor in (0, -1, float("nan")):
        with pytest.raises(DynamicIDError, match="crop factor"):
            crop_square(RAMP, (0, 0, 9, 9), factor)
