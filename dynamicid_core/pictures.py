"""Any picture -> RGB pixels, crops of them, and what CLIP sees (docs/method.md, section 1).

A *picture* is uint8 RGB, [h, w, 3], everywhere in the core; :func:`to_rgb` makes one of whatever a person has. Boxes
are (x0, y0, x1, y1), in pixels of that picture.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .plain import one_line
from .types import DynamicIDError

SMALLEST_PHOTO = 16  # px of the shorter side; nothing can be seen in less
LARGEST_FACTOR = 100.0  # of a crop, in sizes of the face

LONGEST_SHAPE = 16  # a picture's longer side, in its shorter ones, of which all is looked at

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

AnyPicture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


# --- Reading ------------------------------------------------------------------------------------------------------


def _laid_on(ground: str, image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, ground), rgba).convert("RGB")


def _pil_to_array(image: Image.Image, ground: str = "white") -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # 16 bit and float pictures, which PIL would clip
        return np.asarray(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _laid_on(ground, image)
    return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], what: str, cure: str = "Save it as PNG or JPEG.") -> Iterator[Image.Image]:
    """A picture file, opened; ``what`` it is and what helps if it cannot be read, for messages.

    Raises DynamicIDError for what is no file, cannot be read, or would take more memory than any photo, also where that
    is found while the picture is used.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would wait for whoever writes into it
        raise DynamicIDError(f"The {what} {path} is a folder, a pipe or a device; name a file.")
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise DynamicIDError(f"There is no {what} {path}. Check the name and the folder.") from None
    except Image.DecompressionBombError as error:
        raise DynamicIDError(
            f"The {what} {path} is too large to open ({str(error).rstrip('.')}). Save a smaller copy."
        ) from error
    except DynamicIDError:
        raise
    except Exception as error:  # PIL's plugins raise every kind for damaged files
        raise DynamicIDError(
            f"The {what} {path} cannot be read ({one_line(str(error)) or type(error).__name__}). {cure}"
        ) from error


def _open(path: str | os.PathLike[str], what: str, ground: str = "white") -> np.ndarray:
    with opened(path, what) as image:
        image.load()
        return _pil_to_array(image, ground)


def _to_bytes(pixels: np.ndarray, what: str = "photo") -> np.ndarray:
    """Any pixel type -> uint8: 8 bit as it is, wider integers as 16 bit, floats as 0..1; ``what`` it is, for messages."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if np.issubdtype(pixels.dtype, np.integer):
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise DynamicIDError(
                f"The values of a {what} run from {pixels.min()} to {pixels.max()}; expected at most 0..65535."
            )
        return (pixels.astype(np.float32) / 257 + 0.5).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DynamicIDError(f"The values of a {what} are of type {pixels.dtype}; expected integers or floats in 0..1.")
    if not np.isfinite(pixels).all():
        raise DynamicIDError(f"A {what} holds NaN or infinite values; the step that made it went wrong.")
    levels: np.ndarray = np.clip(pixels, 0, 1).astype(np.float32) * 255
    return (levels + 0.5).astype(np.uint8)


def _pixels(image: AnyPicture) -> np.ndarray:
    """A picture that is in memory, of whatever kind -> its values, without a batch axis, [h, w, 1 to 4]."""
    if isinstance(image, Image.Image):
        pixels = _pil_to_array(image)
    elif isinstance(image, Tensor):
        image = image.detach().cpu()
        pixels = (image.float() if image.is_floating_point() else image).numpy()
    else:
        pixels = np.asarray(image)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise DynamicIDError(f"A photo has shape {pixels.shape}; expected one photo, [height, width, channels].")
    return pixels


def to_rgb(image: AnyPicture) -> np.ndarray:
    """Any picture -> uint8 RGB [h, w, 3].

    ``image``: a path; a PIL image; or an array or tensor [h, w], [h, w, 1 | 2 | 3 | 4] or a batch of one of these, with
    channels grey, grey + alpha, RGB or RGBA, as uint8, wider integers (0..65535) or floats in 0..1. A camera's
    orientation tag is obeyed, and what is transparent becomes white.
    Raises DynamicIDError for what cannot be read, has other axes, or is smaller than 16 px.
    """
    pixels = _pixels(_open(image, "photo") if isinstance(image, (str, os.PathLike)) else image)
    height, width, channels = pixels.shape
    if min(height, width) < SMALLEST_PHOTO:
        raise DynamicIDError(f"A photo of {width}x{height} px is too small to show a face; use at least 64x64 px.")
    pixels = _to_bytes(pixels)
    if channels in (2, 4):
        return np.asarray(_laid_on("white", Image.fromarray(pixels, "LA" if channels == 2 else "RGBA")))
    return np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))


def read_mask(path: str | os.PathLike[str]) -> Tensor:
    """A picture of a mask -> float32 [1, h, w]: 1 where it is white, 0 where it is black or transparent.

    Read as photos are: the orientation tag is obeyed, and 16 bit keep their levels. Raises DynamicIDError if it cannot.
    """
    pixels = _to_bytes(_open(path, "mask", ground="black"), "mask")
    grey = Image.fromarray(pixels).convert("L")
    return torch.from_numpy(np.asarray(grey, dtype=np.float32) / 255)[None]


# --- Parts --------------------------------------------------------------------------------------------------------


def check_crop_factor(factor: float) -> None:
    """Raise DynamicIDError for what is neither 0, the whole photo, nor a number of face sizes."""
    if not 0 <= factor <= LARGEST_FACTOR:  # also catches NaN
        raise DynamicIDError(
            f"The crop factor is {factor}; use 0 for the whole photo, 1 for the face alone, about 2 for the head."
        )


def square_around(size: tuple[int, int], box: Sequence[float], factor: float) -> tuple[int, int, int, int]:
    """The place (x0, y0, x1, y1), integers, ends excluded, of a square around a face in a picture of ``size`` (h, w).

    Side ``factor`` times the longer side of ``box``, moved and shrunk to lie in the picture.
    Raises DynamicIDError for a factor that is not above 0.
    """
    if not 0 < factor <= LARGEST_FACTOR:
        raise DynamicIDError(f"The crop factor is {factor}; use 1 for the face alone, about 2 for the head.")
    height, width = size
    x0, y0, x1, y1 = box
    side = min(max(round(factor * max(x1 - x0, y1 - y0)), 1), height, width)
    left = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    top = min(max(round((y0 + y1 - side) / 2), 0), height - side)
    return left, top, left + side, top + side


def crop_square(image: np.ndarray, box: Sequence[float], factor: float) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The square of :func:`square_around`: the crop [s, s, 3] and its place. Errors as there."""
    place = square_around((image.shape[0], image.shape[1]), box, factor)
    left, top, right, bottom = place
    return image[top:bottom, left:right], place


def _middle(picture: Image.Image) -> Image.Image:
    """The middle part of a picture that is much longer than wide: what CLIP sees lies in it, and the rest, enlarged, would take
    gigabytes."""
    width, height = picture.size
    left, top = (max(n - LONGEST_SHAPE * min(width, height), 0) // 2 for n in (width, height))
    return picture.crop((left, top, width - left, height - top)) if left or top else picture


def clip_crop(image: np.ndarray) -> np.ndarray:
    """What CLIP sees of a picture, uint8 RGB [224, 224, 3]: shorter side to 224 px (bicubic), then the centre.

    As Hugging Face's CLIPImageProcessor does with PIL: the longer side is cut off to an integer, not rounded. A picture
    of this size passes through any host's own preprocessing unchanged.
    """
    picture = _middle(Image.fromarray(image))
    width, height = picture.size
    short = min(width, height)
    size = (int(CLIP_SIZE * width / short), int(CLIP_SIZE * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - CLIP_SIZE) // 2, (size[1] - CLIP_SIZE) // 2
    return np.asarray(picture.crop((left, top, left + CLIP_SIZE, top + CLIP_SIZE)))


def clip_pixels(image: np.ndarray) -> Tensor:
    """A picture -> CLIP's input, float32 [1, 3, 224, 224], with CLIP's mean and deviation taken out."""
    pixels = torch.from_numpy(clip_crop(image).copy()).float() / 255
    pixels = (pixels - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    return pixels.permute(2, 0, 1)[None]
