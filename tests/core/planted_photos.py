"""Folders and shards of photos with every defect that a data set can have, and what must be said of each file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from coded_faces import YAWS, draw_face, photo, portrait, save
from PIL import Image, ImageFilter

from dynamicid_core.landmarks import EXPRESSIONS

Expected = dict[str, str | None]  # name below the source -> reason, None: taken
ANNA, BEN, CLEO, SOMEBODY, DORA, STRANGER, ELODIE, MING = 0x53, 0x2C, 0x71, 0x8E, 0x95, 0xE1, 0x3A, 0x66


def plant_people(root: Path) -> Expected:
    """A folder for each person."""
    found: Expected = {}

    def put(name: str, picture: Image.Image, reason: str | None = None, **options) -> None:
        save(picture, root / name, **options)
        found[name] = reason

    for n, expression in enumerate(EXPRESSIONS):  # all 35 cells
        for m, yaw in enumerate(YAWS):
            put(f"anna/{expression} {m}.png", portrait(ANNA, expression, yaw, texture=n))
    put("anna/photo.jpg", portrait(ANNA, "happy", 0, texture=40), quality=95)
    put("anna/summer/deeper.png", portrait(ANNA, "sad", 0, texture=41))
    put("anna/blurred.png", portrait(ANNA, "happy", 0, texture=42, blur=4), "blurred")
    put("anna/small.png", portrait(ANNA, "happy", 0, texture=43, side=48), "small")
    put("anna/hand.png", portrait(ANNA, "happy", 0, texture=44, hidden="half"), "occluded")
    put("anna/mask.png", portrait(ANNA, "happy", 0, texture=45, hidden="mouth"), "occluded")
    put("anna/edge.png", portrait(ANNA, "happy", 0, texture=46, place=(100, 30)), "occluded")
    both = ((draw_face(ANNA, "happy", texture=47), (6, 30)), (draw_face(BEN, side=90), (140, 50)))
    put("anna/with ben.png", photo(*both, size=(240, 176)), "several faces")
    passer_by = ((draw_face(ANNA, "fear", texture=48), (6, 30)), (draw_face(BEN, side=24), (140, 50)))
    put("anna/passer-by.png", photo(*passer_by))  # too small to matter
    put("anna/landscape.png", photo(), "no face")
    _plant_files(root, found)
    _plant_copies(root, found)
    _plant_names(root, found)
    return found


def _plant_files(root: Path, found: Expected) -> None:
    """Broken and misnamed files."""
    whole = io.BytesIO()
    portrait(BEN, "happy", 0, texture=1).save(whole, "JPEG", quality=95)
    for name, content, reason in (
        ("ben/text.jpg", b"not a picture", "unreadable"),
        ("ben/cut.jpg", whole.getvalue()[:900], "unreadable"),
        ("ben/empty.png", b"", "unreadable"),
        ("ben/a jpeg called.png", whole.getvalue(), None),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        found[name] = reason
    hidden = io.BytesIO()
    portrait(BEN, "sad", 30, texture=2).save(hidden, "PNG")
    (root / "ben/export.dat").write_bytes(hidden.getvalue())  # a photo, whatever it is called
    found["ben/export.dat"] = None
    (root / "ben/notes.txt").write_text("nothing")
    (root / "ben/list.csv").write_text("a,b")
    save(portrait(BEN, "neutral", 0, texture=3), root / "alone.png")
    found["alone.png"] = "no person"
    (root / ".hidden.png").write_bytes(whole.getvalue())


def _plant_copies(root: Path, found: Expected) -> None:
    original = portrait(BEN, "anger", 0, texture=4)
    save(original, root / "ben/original.png")
    (root / "ben/the same.png").write_bytes((root / "ben/original.png").read_bytes())
    save(original.resize((240, 264), Image.Resampling.BICUBIC), root / "ben/larger.jpg", quality=92)
    save(portrait(BEN, "anger", 0, texture=5), root / "ben/another.png")  # no copy: only alike
    smiling = portrait(BEN, "happy", 0, texture=4)  # as the original, but for the expression
    save(smiling, root / "ben/smiling.png")
    # The larger copy is the better one.
    found |= {"ben/original.png": "near duplicate", "ben/the same.png": "duplicate", "ben/larger.jpg": None}
    found |= {"ben/another.png": None, "ben/smiling.png": None}


def _plant_names(root: Path, found: Expected) -> None:
    """Whose photo it is: wrong people, several names, odd names."""

    def put(name: str, identity: int, texture: int, reason: str | None = None, expression: str = "neutral") -> None:
        save(portrait(identity, expression, YAWS[texture % 5], texture=texture), root / name)
        found[name] = reason

    for n in range(4):
        put(f"cleo/{n}.png", CLEO, n, "two people")
        put(f"cleo/other {n}.png", SOMEBODY, n, "two people")
        put(f"dora/{n}.png", DORA, n)
        put(f"D\u00f3ra B./{n}.png", DORA, 10 + n, expression="happy")  # dora once more
        put(f"\u00c9lodie: \u540d?/{n}.png", ELODIE, n)
        put(f"con/{n}.png", MING, n)
    put("dora/misfiled.png", ANNA, 70, "other person")
    put("dora/stranger.png", STRANGER, 71, "other person")
    put("dora/stranger again.png", STRANGER, 72, "other person")


def plant_kdef(root: Path) -> Expected:
    """KDEF's layout: two sessions of one person, and another person. Its labels are in the names."""
    found: Expected = {}
    for session, texture in (("A", 1), ("B", 2)):
        for code in ("AF", "AN", "DI", "HA", "NE", "SA", "SU"):
            for angle in ("FL", "HL", "S", "HR", "FR"):
                if session == "A" or angle == "S":
                    name = f"{session}F01/{session}F01{code}{angle}.JPG"
                    # the detector reads all as neutral from the front; the names know better
                    texture += 3
                    save(portrait(0xC3, texture=texture), root / "KDEF" / name, quality=95)
                    found[f"KDEF/{name}"] = None
    for n, angle in enumerate(("S", "HL")):
        save(portrait(0x1D, texture=n), root / "KDEF" / f"AM02/AM02HA{angle}.JPG", quality=95)
        found[f"KDEF/AM02/AM02HA{angle}.JPG"] = None
    return found


def plant_published(root: Path) -> Expected:
    """The layout of the published code: prompts, pictures of landmarks and cached tokens beside the photos."""
    folder = root / "base_image_dataset"
    for person, identity in (("p0", 0x47), ("p1", 0xB8)):
        for n, prompt in enumerate(("the expression is afraid, the face is fully turned to the left", "She laughs.")):
            save(portrait(identity, "happy", 0, texture=n), folder / person / f"{n}.png")
            (folder / person / f"{n}.txt").write_text(prompt)
            save(Image.new("L", (96, 96)), folder / person / f"{n}_landmark.png")
            (folder / person / f"{n}.pt").write_bytes(b"tokens")
    return {f"base_image_dataset/p{p}/{n}.png": None for p in range(2) for n in range(2)}


def plant_shards(root: Path) -> Expected:
    """Two WebDataset shards: people by folder, by key, and by JSON."""
    root.mkdir(parents=True, exist_ok=True)
    samples = [
        ("eva/0001", {"png": _png(0x17, 0)}, None),
        ("eva/0002", {"png": _png(0x17, 1), "txt": b"Eva at sea"}, None),
        ("finn_0001", {"png": _png(0xD2, 0)}, None),
        ("finn_0002", {"jpg": b"broken"}, "unreadable"),
        (
            "0003",
            {"png": _png(0xD2, 2), "json": json.dumps({"person": "finn", "expression": "Happiness"}).encode()},
            None,
        ),
        ("0004", {"png": _png(0x29, 4)}, "no person"),
    ]
    found: Expected = {}
    for number in range(2):
        with tarfile.open(root / f"{number:03d}.tar", "w") as shard:
            for key, members, reason in samples[3 * number : 3 * number + 3]:
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
                    if ending in ("png", "jpg"):
                        found[f"{number:03d}.tar/{info.name}"] = reason
    return found


def _png(identity: int, texture: int) -> bytes:
    content = io.BytesIO()
    portrait(identity, texture=texture).save(content, "PNG")
    return content.getvalue()


# --- functions that fill cells, as a user would name them ---------------------------------------------------------


def perfect(picture, wanted):
    """Whoever is in the photo, as wanted."""
    return portrait(_who(picture), wanted.expression, _yaw(wanted.pose), texture=wanted.seed % 200)


def mistaken(picture, wanted):
    """Wrong in a way that depends on the cell; right for the rest; the second attempt is better."""
    who, yaw, texture = _who(picture), _yaw(wanted.pose), wanted.seed % 200
    if wanted.attempt or wanted.pose == "front view":
        return portrait(who, wanted.expression, yaw, texture=texture)
    if wanted.expression == "happy":
        return portrait(who ^ 0x5A, "happy", yaw, texture=texture)
    if wanted.expression == "sad":
        return portrait(who, "anger", yaw, texture=texture)
    if wanted.expression == "fear":
        return portrait(who, "fear", -yaw, texture=texture)
    if wanted.expression == "disgust":
        return portrait(who, "disgust", yaw, texture=texture).filter(ImageFilter.GaussianBlur(4))
    return None


def failing(picture, wanted):
    raise RuntimeError("out of memory")


def _who(picture) -> int:
    from coded_faces import CodedFaces

    face = max(CodedFaces().detect(picture), key=lambda f: f.size)
    x0, y0, x1, _ = face.box
    step = (x1 - x0) / 16
    grey = picture.mean(2)
    bits = [grey[int(y0 + 2 * step), int(x0 + step * (1 + 1.75 * n + 0.9))] > 128 for n in range(8)]
    return sum(int(bit) << n for n, bit in enumerate(bits))


def _yaw(pose: str) -> int:
    from dynamicid_core.datasets.labels import pose_of

    return next(yaw for yaw in YAWS if pose_of(yaw) == pose)


def drawn_caption(picture, labels) -> str:
    return f"{labels['person']} {labels['prompt']} {picture.shape[1]}x{picture.shape[0]}"
