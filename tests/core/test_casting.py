"""Photos of several people become a cast: who is named, placed, told of, and encoded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamicid_core import previews
from dynamicid_core.casting import PLACES, Places, encode_people, place_people
from dynamicid_core.encode import TokenEncoder, encode_photos
from dynamicid_core.faces import DetectedFace
from dynamicid_core.groups import EncodedGroup, GroupOptions, encode_group, face_places
from dynamicid_core.networks.face_encoder import FaceEncoderSizes
from dynamicid_core.placing import place_in_boxes
from dynamicid_core.remembering import PhotoMemory
from dynamicid_core.scoring import person_names
from dynamicid_core.types import Cast, DynamicIDError, Face, Missing, Person, Region

WIDTH, HEIGHT = 120, 60


def photo(*heads: int, shade: int = 30, width: int = WIDTH) -> np.ndarray:
    """White squares of these sides on grey, in equal columns: what the detector takes for heads."""
    picture = np.full((HEIGHT, width, 3), shade, np.uint8)
    for number, side in enumerate(heads):
        x = (2 * number + 1) * width // (2 * len(heads)) - side // 2
        picture[HEIGHT // 2 - side // 2 :, x : x + side][:side] = 255
    return picture


class Detector:
    """Finds each run of white columns; identity by its place. Counts the photos that it looked at."""

    def __init__(self) -> None:
        self.looked = 0

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        self.looked += 1
        white = np.concatenate(([False], (image == 255).all(2).any(0), [False])).astype(int)
        edges = zip(np.flatnonzero(np.diff(white) == 1), np.flatnonzero(np.diff(white) == -1), strict=True)
        faces = []
        for x0, x1 in edges:
            side, y = float(x1 - x0), HEIGHT / 2
            identity = np.eye(512, dtype=np.float32)[int(x0)]
            faces.append(
                DetectedFace((float(x0), y - side / 2, float(x1), y + side / 2), 0.9, np.zeros((5, 2)), identity)
            )
        return faces


class Model:
    pass


class Clip:
    """Each crop's mean as its tokens; counts them."""

    def __init__(self) -> None:
        self.model, self.seen = Model(), 0

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels) * bool(pixels.any())  # null tokens come of zeros
        return pixels.mean((1, 2, 3))[:, None, None].expand(-1, 5, 9)


def first_tokens(identities: torch.Tensor, clip_tokens: torch.Tensor) -> torch.Tensor:
    return clip_tokens[:, :4, :8] + identities.argmax(1)[:, None, None]


ENCODER = TokenEncoder(first_tokens, FaceEncoderSizes(clip=9, width=8), "made by this")
ANNA, BEN, CLEO = [photo(20)], [photo(24, shade=60)], [photo(28, shade=90)]


def encoded(people, detector=None, clip=None, **how):
    return encode_people(people, detector or Detector(), clip or Clip(), ENCODER, **how)


def faces(*names: str) -> list[Face]:
    return [Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "x", name=name) for name in names]


# --- Who ----------------------------------------------------------------------------------------------------------


def test_everybody_is_encoded_as_encode_face_does_and_named():
    people = encoded([ANNA, BEN * 2], names="Anna\nBen")
    for face, photos, name in zip(people.faces, (ANNA, BEN * 2), ("Anna", "Ben"), strict=True):
        alone = encode_photos(photos, Detector(), Clip(), ENCODER, name=name).face
        assert face.name == name and torch.equal(face.tokens, alone.tokens)
    assert person_names(place_people(None, people.faces)) == ["1 Anna", "2 Ben"] and people.messages == ()


def test_photos_of_one_person_may_differ_in_size_and_faces_come_as_they_are():
    (ready,) = faces("from a file")
    wider = photo(20, width=200)
    several, kept, renamed = encoded([[ANNA[0], wider], ready, ready], names="Anna,,Cleo").faces
    each = [encoded([[one]]).faces[0].tokens for one in (ANNA[0], wider)]
    torch.testing.assert_close(several.tokens, sum(each) / 2)
    assert (kept.name, renamed.name) == ("from a file", "Cleo") and torch.equal(kept.tokens, ready.tokens)


def test_of_several_faces_the_largest_is_taken_and_the_others_are_told():
    people = encoded([ANNA, [photo(10, 12, 30)]], names=",Ben")
    assert people.faces[1].identity.argmax() == 85  # the third column's head
    assert people.messages == (
        "Person 2 (Ben): the photo shows 3 faces; the largest is taken, face 0 (right), and not face 1 (middle), face 2 (left).",
    )


def test_mistakes_name_person_and_photo():
    with pytest.raises(DynamicIDError, match=r"^Person 2 \(Ben\): No face was found in photo 2 of 2\. "):
        encoded([ANNA, [BEN[0], photo()]], names="Anna, Ben")
    with pytest.raises(DynamicIDError, match=r"^Person 1: No face was found in the photo\. "):
        encoded([[photo()]])
    with pytest.raises(DynamicIDError, match=r"^Person 4 \(Ben\): No face"):  # who are in the cast before count
        encoded([ANNA, [photo()]], names="Anna, Ben", before=2)
    with pytest.raises(DynamicIDError, match="There is 1 person but 2 names"):
        encoded([ANNA], names="Anna, Ben")
    with pytest.raises(DynamicIDError, match="There is nobody"):
        encoded([])
    with pytest.raises(Missing, match="^Without a face detector"):
        encode_people([ANNA], None, Clip(), ENCODER)
    left_out = encoded([[BEN[0], photo()]], names="Ben", on_no_face="skip photo")
    assert left_out.messages == ("Person 1 (Ben): No face was found in photo 2 of 2: left out.",)


# --- What is remembered -------------------------------------------------------------------------------------------


def test_who_changes_one_photo_waits_for_that_one_alone():
    memory, detector, clip = PhotoMemory(), Detector(), Clip()

    def run(people, **how):
        before = detector.looked, clip.seen
        made = encoded(people, memory.watching(detector), clip, encode=memory.encode, **how)
        return made, (detector.looked - before[0], clip.seen - before[1])

    first, cost = run([ANNA, BEN])
    assert cost == (2, 2)
    again, cost = run([ANNA, CLEO])
    assert cost == (1, 1) and torch.equal(first.faces[0].tokens, again.faces[0].tokens)
    named, cost = run([CLEO, ANNA], names="C, A")
    assert cost == (0, 0) and [face.name for face in named.faces] == ["C", "A"]
    assert run([ANNA + CLEO])[1] == (0, 0)
    assert run([ANNA], crop_factor=2.0)[1] == (0, 1)
    for face, photos in zip(run([ANNA, BEN, CLEO])[0].faces, (ANNA, BEN, CLEO), strict=True):
        assert torch.equal(face.tokens, encoded([photos]).faces[0].tokens)


def test_another_model_or_detector_is_asked_anew_and_what_is_old_is_forgotten():
    memory, detector = PhotoMemory(most=2), Detector()
    for clip in (Clip(), Clip()):
        encoded([ANNA], memory.watching(detector), clip, encode=memory.encode)
        assert clip.seen == 1
    assert detector.looked == 1
    other = Detector()
    encoded([ANNA], memory.watching(other), clip, encode=memory.encode)
    assert (other.looked, clip.seen) == (1, 1)
    encoded([BEN, CLEO], memory.watching(other), clip, encode=memory.encode)
    assert len(memory._faces.entries) == len(memory._found.entries) == 2
    encoded([ANNA], memory.watching(other), clip, encode=memory.encode)
    assert (other.looked, clip.seen) == (4, 4)


# --- Where --------------------------------------------------------------------------------------------------------

LEFT, RIGHT = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)


def boxes(cast: Cast) -> list:
    return [person.region and person.region.box for person in cast.people]


def test_each_layout_places_people_and_free_leaves_them():
    people = faces("Anna", "Ben", "Cleo")
    seen = {layout: boxes(place_people(None, people, Places(layout))) for layout in PLACES}
    assert seen["free"] == seen["drawn"] == [None] * 3
    assert all(len(set(seen[layout])) == 3 for layout in ("side by side", "rows", "grid"))
    assert boxes(place_people(None, people, Places("drawn", "0,0,0.5,1; 0.5,0,1,1"))) == [LEFT, RIGHT, None]


def test_masks_come_before_boxes_and_boxes_before_the_layout():
    mask = torch.ones(3, 4)
    before = place_people(None, faces("Zoe"))
    cast = place_people(
        before, faces("Anna", "Ben"), Places(frames=[[LEFT, RIGHT]], canvas=(6, 8), masks={1: mask}), "1, 0.8"
    )
    assert [person.face.name for person in cast.people] == ["Zoe", "Anna", "Ben"] and len(before.people) == 1
    assert cast.people[1].region == Region(box=LEFT, canvas=(6, 8)) and cast.people[2].region.mask.shape == (1, 3, 4)
    assert [person.weight for person in cast.people] == [1, 1, 0.8]
    moving = place_people(None, faces("Anna"), Places(frames=[[LEFT], [RIGHT]], cells=(2, 4)))
    assert moving.people[0].region.mask.shape == (2, 2, 4)


def test_mistakes_count_people_after_those_of_the_cast():
    before = Cast().add(Person(faces("Zoe")[0]))
    with pytest.raises(DynamicIDError, match="a mask for person 4, but the last person is 3"):
        place_people(before, faces("Anna", "Ben"), Places(masks={2: torch.ones(2, 2)}))
    with pytest.raises(DynamicIDError, match="Box 1 belongs to person 2"):
        place_in_boxes(before, faces("Anna"), [[LEFT, RIGHT]])


@pytest.mark.parametrize(
    "places, weights, said",
    [
        (Places(frames=[[LEFT, RIGHT, LEFT]]), "1", "2 faces and 3 boxes: too few faces"),
        (Places(frames=[[LEFT], [LEFT, RIGHT]]), "1", "2 faces and 1 boxes in frame 1"),
        (Places(masks={2: torch.ones(2, 2)}), "1", "a mask for person 3, but the last person is 2"),
        (Places(), "1, 1, 1", "2 people but 3 weights"),
        (Places("ring"), "1", "The layout 'ring' is unknown"),
    ],
)
def test_what_cannot_be_meant_is_said(places, weights, said):
    with pytest.raises(DynamicIDError, match=said):
        place_people(None, faces("Anna", "Ben"), places, weights)


# --- Group photos -------------------------------------------------------------------------------------------------


def group(*heads: int, **options) -> EncodedGroup:
    return encode_group(photo(*heads), Detector(), Clip(), ENCODER, GroupOptions(**options))


def test_everybody_of_a_group_photo_stands_where_the_photo_shows_them():
    made = group(20, 10, 16, names="Anna\nBen\nCleo")
    assert [face.name for face in made.faces] == ["Anna", "Ben", "Cleo"] and made.message == ""
    for person, face in zip(made.cast.people, made.found, strict=True):
        y0, x0, y1, x1 = person.region.box
        assert x0 * WIDTH < face.center[0] < x1 * WIDTH and y0 * HEIGHT < face.center[1] < y1 * HEIGHT
        alone = encode_photos([photo(20, 10, 16)], Alone(face), Clip(), ENCODER, crop_factor=2.0).face
        assert torch.equal(person.face.tokens, alone.tokens)
    (first, second, third) = (person.region.box for person in made.cast.people)
    assert first[3] <= second[1] < second[3] <= third[1]


class Alone:
    """Sees one face in every photo."""

    def __init__(self, face: DetectedFace) -> None:
        self.face = face

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        return [self.face]


def test_faces_are_left_out_by_size_and_by_name_and_ordered():
    made = group(20, 10, 16, names="Cleo\n-", smallest=12, order="right-left")
    assert [face.name for face in made.faces] == ["Cleo"] and made.faces[0].identity.argmax() == 92
    assert len(made.left_out) == 2 and made.message == "3 faces were found, of which 2 are left out."
    assert len(group(20, 10, 16, names="Anna").faces) == 3


@pytest.mark.parametrize(
    "heads, options, said",
    [
        ((), {}, "^No face was found in the group photo"),
        ((20,), {"smallest": 50}, "^No face of at least 50 px was found"),
        ((20, 20), {"names": "a, b, c"}, "There are 2 people but 3 names"),
        ((20,), {"names": "-"}, "Every face of the group photo is left out"),
        ((20,), {"crop_factor": -1.0}, "crop factor"),
        ((20,), {"place_factor": 0.0}, "place_factor is 0.0"),
    ],
)
def test_group_photos_that_cannot_be_used_say_why(heads, options, said):
    with pytest.raises(DynamicIDError, match=said):
        group(*heads, **options)


def test_places_never_overlap_and_hold_their_face():
    rng = np.random.default_rng(3)
    for _ in range(30):
        centers, sides = rng.uniform(5, 95, (6, 2)), rng.uniform(2, 30, 6)
        found = [
            DetectedFace((x - s / 2, y - s / 2, x + s / 2, y + s / 2), 1, np.zeros((5, 2)))
            for (x, y), s in zip(centers, sides, strict=True)
        ]
        places = face_places(found, (100, 100), 3.0)
        for i, (y0, x0, y1, x1) in enumerate(places):
            assert 0 <= y0 <= centers[i, 1] / 100 <= y1 <= 1 and 0 <= x0 <= centers[i, 0] / 100 <= x1 <= 1
            for b0, a0, b1, a1 in places[:i]:
                assert min(y1, b1) - max(y0, b0) <= 1e-9 or min(x1, a1) - max(x0, a0) <= 1e-9


def test_two_detections_of_one_face_leave_somebody_without_a_place_of_their_own_not_an_error():
    twice = [DetectedFace((40, 40, 60, 60), 1, np.zeros((5, 2)))] * 2
    assert all(0 <= a <= b <= 1 for y0, x0, y1, x1 in face_places(twice, (100, 100)) for a, b in ((y0, y1), (x0, x1)))


# --- Previews -----------------------------------------------------------------------------------------------------


def test_previews_show_who_is_where_and_whose_each_photo_is():
    people = encoded([ANNA, [photo(10, 30)] * 2, *faces("Zoe")], names="Anna, Ben")
    cast = place_people(place_people(None, faces("before")), people.faces)
    drawn = previews.draw_people(people, cast, 160, 80)
    assert [picture.shape for picture in drawn] == [(256, 512, 3)] * 4  # the cast, one photo of Anna, two of Ben
    assert np.array_equal(drawn[2], drawn[3]) and not np.array_equal(drawn[1], drawn[2])
    assert previews.draw_people(people, cast, 4000, 2000)[0].shape == (512, 1024, 3)
    named, unnamed = (previews.draw_group(group(20, 16, names=names)) for names in ("Anna, Ben", ""))
    assert named.shape == (HEIGHT, WIDTH, 3) and not np.array_equal(named, unnamed)


def test_a_cast_of_one_recogniser_alone():
    other = Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "x", recogniser="antelopev2")
    with pytest.raises(DynamicIDError, match="different recognisers"):
        place_people(Cast((Person(other),)), faces("Anna"))
