"""What each face network sees while it learns: crops as InsightFace makes them, a little off, from worn pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .face_pictures import Pictures

# The five key points: eyes, tip of the nose, corners of the mouth, of the 106.
KEYPOINTS = ((33, 35, 40, 39), (87, 89, 94, 93), (86,), (52,), (61,))
# Where InsightFace puts them in a picture of 112 px before it tells people apart.
ALIGNED = np.array(
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)), np.float32
)
ALIGNED_SIDE, MARGIN = 112, 1.5  # the crop of landmark models is 1.5 times the longer side of the box


def keypoints_of(landmarks: np.ndarray) -> np.ndarray:
    """[..., 106, 2] -> [..., 5, 2]."""
    return np.stack([landmarks[..., list(part), :].mean(-2) for part in KEYPOINTS], -2)


def similarity(points: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The turn, scale and shift [2, 3] that bring points [n, 2] nearest to ``goal`` [n, 2] in squares."""
    p, q = points[:, 0] + 1j * points[:, 1], goal[:, 0] + 1j * goal[:, 1]
    away = p - p.mean()
    a = (away.conj() * (q - q.mean())).sum() / (away.conj() * away).sum().real
    b = q.mean() - a * p.mean()
    return np.array(((a.real, -a.imag, b.real), (a.imag, a.real, b.imag)))


def warped(picture: np.ndarray, matrix: np.ndarray, side: int, fine: int = 1, border: int = 0) -> np.ndarray:
    """A square crop; ``fine`` > 1 samples so many times finer and averages, as a network's first pooling does."""
    import cv2

    scale = np.array(((fine,), (fine,)))
    crop = cv2.warpAffine(picture, matrix * scale, (side * fine, side * fine), borderValue=(border,) * 3)
    return crop if fine == 1 else cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)


def worn(rng: np.random.Generator, crop: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Lost resolution, blur, another brightness and contrast, a little noise: each in some of the cases."""
    import cv2

    side = crop.shape[0]
    if rng.uniform() < 0.35:
        small = int(side * rng.uniform(least, 1))
        how = cv2.INTER_AREA if rng.uniform() < 0.5 else cv2.INTER_LINEAR
        crop = cv2.resize(cv2.resize(crop, (small, small), interpolation=how), (side, side))
    if rng.uniform() < 0.2:
        crop = cv2.GaussianBlur(crop, (0, 0), float(rng.uniform(0.3, 1.0)))
    if rng.uniform() < 0.5:
        gain, add = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.92, 1.08), rng.uniform(-10, 10)
        crop = np.clip(crop * gain.astype(np.float32) + np.float32(add), 0, 255)
    if rng.uniform() < 0.25:
        crop = np.clip(crop + rng.standard_normal(crop.shape, np.float32) * rng.uniform(1, 8), 0, 255)
    return np.asarray(crop, np.float32)


def network_input(crops: Sequence[np.ndarray], bgr: bool = False, deviation: float = 127.5) -> np.ndarray:
    """Crops [s, s, 3], 0 to 255, RGB -> float32 [n, 3, s, s] as InsightFace gives them to networks."""
    pixels = (np.stack(crops).astype(np.float32) - 127.5) / deviation
    return np.ascontiguousarray((pixels[..., ::-1] if bgr else pixels).transpose(0, 3, 1, 2))


def aligned_crop(pool: Pictures, rng: np.random.Generator, face: int) -> np.ndarray:
    """A face brought to ``ALIGNED`` by key points that are as wrong as a detector's."""
    picture = pool.choose(rng, int(pool.faces.picture[face]))
    points = keypoints_of(pool.faces.landmarks[face])
    size = float(np.ptp(pool.faces.landmarks[face], axis=0).max())
    off = rng.standard_normal((5, 2)) * 0.014 + rng.standard_normal(2) * 0.01
    return worn(rng, warped(picture, similarity(points + size * off, ALIGNED), ALIGNED_SIDE))


def landmark_matrix(box: np.ndarray, side: int) -> np.ndarray:
    """Where InsightFace's landmark models look: [2, 3] from the picture to a square crop around ``box`` [4]."""
    scale = side / (MARGIN * max(box[2] - box[0], box[3] - box[1]))
    middle = (box[:2] + box[2:]) / 2
    return np.array(((scale, 0, side / 2 - scale * middle[0]), (0, scale, side / 2 - scale * middle[1])))


def jittered(rng: np.random.Generator, box: np.ndarray, amount: float = 0.035) -> np.ndarray:
    """A box [4] as wrong as a detector's."""
    size = np.tile(box[2:] - box[:2], 2)
    return box + size * (rng.standard_normal(4) * amount)


def landmark_crop(
    pool: Pictures, rng: np.random.Generator, face: int, side: int, fine: int
) -> tuple[np.ndarray, np.ndarray]:
    """The crop of landmark models, and the 106 points in it from -1 to 1."""
    picture = pool.choose(rng, int(pool.faces.picture[face]))
    points = pool.faces.landmarks[face]
    box = jittered(rng, np.concatenate((points.min(0), points.max(0))))
    matrix = landmark_matrix(box, side)
    placed = points @ matrix[:, :2].T + matrix[:, 2]
    return worn(rng, warped(picture, matrix, side, fine)), (placed / (side / 2) - 1).astype(np.float32)


def box_crop(pool: Pictures, rng: np.random.Generator, face: int, side: int) -> np.ndarray:
    """The box of a face, stretched to a square, as classifiers of expressions get it."""
    picture = pool.choose(rng, int(pool.faces.picture[face]))
    points = pool.faces.landmarks[face]
    x0, y0, x1, y1 = jittered(rng, np.concatenate((points.min(0), points.max(0))))
    u, v = side / (x1 - x0), side / (y1 - y0)
    fine = 2 if max(u, v) < 0.6 else 1
    return worn(rng, warped(picture, np.array(((u, 0, -u * x0), (0, v, -v * y0))), side, fine))


def letterbox(
    pool: Pictures, rng: np.random.Generator, index: int, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture as a detector sees it: [side, side, 3], boxes [n, 4] and key points [n, 5, 2] of all faces in it.

    At the upper left as InsightFace puts it, or elsewhere; smaller, because detection tries that too; on black or grey.
    """
    picture = pool.choose(rng, index)
    longer = max(picture.shape[:2])
    landmarks = pool.faces.landmarks[pool.in_picture[index]]
    scale = side / longer * (1 if rng.uniform() < 0.4 else float(np.exp(rng.uniform(np.log(0.25), np.log(1.25)))))
    shift, border = np.zeros(2), 0
    if scale * longer > side or rng.uniform() < 0.6:
        border = int(rng.choice((0, 0, 127)))
        shift = free_shift(rng, landmarks * scale, np.array(picture.shape[1::-1]) * scale, side)
    placed = landmarks * scale + shift
    fine = 1 if scale > 0.7 else 2
    # OpenCV counts from the middle of the first pixel; resizing, and everything else here, from its edge.
    x, y = shift + 0.5 * scale - 0.5 / fine
    crop = worn(rng, warped(picture, np.array(((scale, 0, x), (0, scale, y))), side, fine, border), 0.7)
    boxes = np.concatenate((placed.min(1), placed.max(1)), 1) if len(placed) else np.zeros((0, 4), np.float32)
    return crop, boxes, keypoints_of(placed)


def free_shift(rng: np.random.Generator, landmarks: np.ndarray, size: np.ndarray, side: int) -> np.ndarray:
    """A place at random for a picture of ``size`` (w, h), such that its faces [n, 106, 2] are seen."""
    if len(landmarks):
        low, high = -landmarks.min((0, 1)), side - landmarks.max((0, 1))
    else:
        low, high = np.minimum(0, side - size), np.maximum(0, side - size)
    reach = 0.15 * side
    low = np.maximum(low, np.minimum(0, side - size) - reach)
    high = np.minimum(high, np.maximum(0, side - size) + reach)
    return rng.uniform(np.minimum(low, high), np.maximum(low, high))
