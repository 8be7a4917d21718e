"""Photos to a face with networks that a test can count."""

import numpy as np
import torch

from dynamicid_core.encode import CLIP_BATCH, NULL_PIXELS, encode_photos

PHOTOS = [np.full((40, 30, 3), shade, dtype=np.uint8) for shade in (0, 200)]


class Clip:
    """Each picture's mean as its tokens; counts the pictures it sees."""

    def __init__(self):
        self.seen = 0

    def __call__(self, pixels):
        self.seen += len(pixels)
        return pixels.mean((1, 2, 3))[:, None, None].expand(-1, 257, 1280)


def encoder(identities, clip_tokens, null_clip_tokens):
    assert identities.shape == (len(clip_tokens), 512)
    return clip_tokens[:, :4, :768], null_clip_tokens[:, :4, :768]


def encode(clip, **more):
    return encode_photos(PHOTOS, None, clip, encoder, "test", on_no_face="clip only", **more).face


def test_photos_are_averaged_and_null_tokens_are_those_of_zero_pixels():
    clip = Clip()
    face = encode(clip)
    assert clip.seen == 3
    alone = [encode_photos([p], None, Clip(), encoder, "test", on_no_face="clip only").face.tokens for p in PHOTOS]
    torch.testing.assert_close(face.tokens, sum(alone) / 2)
    assert not torch.equal(*alone)
    assert (face.uncond_tokens == 0).all()


def test_known_null_tokens_are_not_computed_again():
    clip = Clip()
    null = Clip()(NULL_PIXELS) + 1
    face = encode(clip, null_clip_tokens=lambda: null)
    assert clip.seen == 2
    assert (face.uncond_tokens == 1).all()
    torch.testing.assert_close(face.tokens, encode(Clip()).tokens)


def test_many_photos_go_through_clip_in_parts():
    """The frames of a video must not need memory for all at once."""
    shades = np.linspace(0, 255, 2 * CLIP_BATCH + 5).astype(np.uint8)
    photos, clip, sizes = [np.full((40, 30, 3), shade, dtype=np.uint8) for shade in shades], Clip(), []

    def noting(pixels):
        sizes.append(len(pixels))
        return clip(pixels)

    face = encode_photos(photos, None, noting, encoder, "test", on_no_face="clip only").face
    assert sum(sizes) == len(photos) + 1 and max(sizes) <= CLIP_BATCH
    alone = [encode_photos([p], None, Clip(), encoder, "test", on_no_face="clip only").face.tokens for p in photos]
    torch.testing.assert_close(face.tokens, sum(alone) / len(alone))
    assert (face.uncond_tokens == 0).all()
