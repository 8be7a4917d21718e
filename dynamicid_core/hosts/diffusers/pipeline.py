"""DynamicID on a pipeline: what people call."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...animation import AnimationOptions, animate_face
from ...bases import fitting_layout
from ...casting import Places, place_people
from ...checkpoints import (
    MotionCheckpoint,
    SAACheckpoint,
    check_faces,
    encoder_warnings,
    load_motion,
    load_saa,
    motion_warning,
)
from ...detection import load_detector
from ...face_files import load_face
from ...faces import FaceDetector
from ...gate_maps import GateRecorder
from ...groups import GroupOptions
from ...motion import MotionNetworks, edit_face
from ...origins import choose_text_encoder
from ...pictures import to_rgb
from ...refining import RefinedPicture, RefineOptions, plan, refine
from ...refining.crops import as_picture
from ...regions import Box
from ...types import Cast, Face, Missing, Person, SAAOptions, hinting
from ...views import View
from .clip_vision import load_clip_vision
from .lora import FusedLoRA
from .photos import HINTS, FloatNetwork, PhotoEncoder
from .refining import Redrawer, Sampling
from .texts import pooled_features, text_encoders
from .unet import Attachment, attach, unwrapped


class DynamicID:
    """DynamicID on a diffusers pipeline of Stable Diffusion 1.5, 2 or XL, or of any whose UNet the weights were made for.

    Text to image, image to image, inpainting, ControlNet, AnimateDiff.

    Photos become faces (:meth:`encode`), faces get expressions (:meth:`edit`), a cast of them goes into the pipeline
    (:meth:`apply`) until :meth:`remove`, which leaves the pipeline as it was, bit for bit. :meth:`apply` can be used in a
    ``with`` statement.
    """

    def __init__(
        self,
        pipe: Any,
        saa: SAACheckpoint,
        motion: MotionCheckpoint | None = None,
        *,
        clip_vision: nn.Module | None = None,
        detector: FaceDetector | None = None,
    ):
        """``clip_vision``: ViT-H/14 (:func:`load_clip_vision`), and ``detector`` (:func:`detection.load_detector`): needed to
        encode photos, not for face files; ``motion``: needed to edit. A ``motion`` that was trained with another face encoder
        gets a Python warning.

        Raises DynamicIDError if the pipeline's UNet is not the one the weights were made for.
        """
        self.pipe, self.saa, self.motion = pipe, saa, motion
        self.photos = PhotoEncoder(saa, clip_vision, detector, lambda: self.pipe._execution_device)
        self._attachment: Attachment | None = None
        self._fused: FusedLoRA | None = None
        self._again: Callable[[], object] | None = None  # applies what is applied now
        fitting_layout(unwrapped(pipe.unet), saa.saa, origin=saa.origin)
        if message := motion_warning(saa, motion):
            warnings.warn(message, stacklevel=2)

    @classmethod
    def from_files(
        cls,
        pipe: Any,
        saa: str | os.PathLike[str],
        imr: str | os.PathLike[str] | None = None,
        *,
        clip_vision: str | os.PathLike[str] | nn.Module | None = None,
        detector: str | os.PathLike[str] | FaceDetector | None = None,
    ) -> DynamicID:
        """``saa``: SAA.bin or saa.safetensors; ``imr``: IMR.bin or imr.safetensors; ``clip_vision``: a file or folder;
        ``detector``: the folder of an InsightFace model pack, or its name if it lies in ``~/.insightface/models``.
        """
        if isinstance(clip_vision, (str, os.PathLike)):
            clip_vision = load_clip_vision(clip_vision)
        if isinstance(detector, (str, os.PathLike)):
            detector = load_detector(str(detector))
        motion = load_motion(imr) if imr is not None else None
        return cls(pipe, load_saa(saa), motion, clip_vision=clip_vision, detector=detector)

    # Faces

    def encode(
        self,
        *images: Any,
        name: str = "",
        order: str = "large-small",
        index: int = 0,
        crop_factor: float = 0.0,
        on_no_face: str = "error",
    ) -> Face:
        """One or several photos of one person (paths, PIL images, arrays) -> a face.

        ``order``, ``index``: which face of a group photo; the rest as in :func:`encode.encode_photos`. What the user should
        know (photos without a face that were left out) becomes a Python warning.
        Raises DynamicIDError for photos that cannot be used.
        """
        how = {"order": order, "index": index, "crop_factor": crop_factor, "on_no_face": on_no_face}
        encoded = self.photos.encode(*images, name=name, **how)
        if encoded.message:
            warnings.warn(encoded.message, stacklevel=2)
        return encoded.face

    def encode_group(self, image: Any, names: str = "", **how: Any) -> Cast:
        """Everybody in one photo (path, PIL image, array), from left to right, where the photo shows them.

        ``names``: ``"Anna, Ben"``; ``how``: the fields of :class:`groups.GroupOptions`. Who was left out becomes a Python warning.
        Raises DynamicIDError for a photo without faces, and for more names than faces.
        """
        encoded = self.photos.encode_group(image, GroupOptions(names, **how))
        if encoded.message:
            warnings.warn(encoded.message, stacklevel=2)
        return encoded.cast

    def cast(self, *people: Any, names: str = "", places: Places = Places(), weights: str = "1", **how: Any) -> Cast:
        """Several people, each a face, a photo, or a list of photos, with names and places.

        As :func:`casting.encode_people`, of which ``how`` are options, and :func:`casting.place_people`. What the user should
        know becomes Python warnings.
        """
        encoded = self.photos.encode_people(*people, names=names, **how)
        for message in encoded.messages:
            warnings.warn(message, stacklevel=2)
        return place_people(None, encoded.faces, places, weights)

    def load_face(self, path: str | os.PathLike[str], warn: Callable[[str], None] | None = None) -> Face:
        """Read a face file; ``warn`` gets a sentence if another encoder made it (default: a Python warning)."""
        return load_face(path, self.saa.encoder_hash, warn or warnings.warn)

    @hinting(HINTS)
    def edit(
        self, face: Face, expression: str = "", *, source: str = "", pose_image: Any = None, strength: float = 1.0
    ) -> Face:
        """The same person with another expression or pose, e.g. ``"a very surprised expression, front view"``.

        As :func:`motion.edit_face`, which decides what is taken from where; ``pose_image``: a photo (path, PIL image, array)
        of anybody.
        """
        picture = None if pose_image is None else to_rgb(pose_image)
        return edit_face(
            face, self._motion_networks(), expression=expression, source=source, pose_image=picture,
            detector=self.photos.detector, strength=strength,
        )  # fmt: skip

    @hinting(HINTS)
    def animate(
        self,
        face: Face,
        keyframes: str = "",
        *,
        driving: Sequence[Any] = (),
        source: str = "",
        options: AnimationOptions = AnimationOptions(),
        warn: Callable[[str], object] | None = None,
    ) -> Face:
        """The same person with a face for each picture of a batch or video, e.g. ``"0: neutral; 12: very happy"``.

        As :func:`animation.animate_face`, which decides what is taken from where; ``driving``: photos (paths, PIL images,
        arrays) of anybody, one for each picture; ``warn`` gets a sentence about those without a face (default: a Python
        warning).
        """
        return animate_face(
            face, self._motion_networks(), keyframes=keyframes, driving=[to_rgb(photo) for photo in driving],
            detector=self.photos.detector, source=source, options=options, warn=warn or warnings.warn,
        )  # fmt: skip

    def _motion_networks(self) -> MotionNetworks | None:
        if self.motion is None:
            return None
        networks = FloatNetwork(self.motion.reconfigurator), FloatNetwork(self.motion.keypoint_encoder)
        return MotionNetworks(*networks, self.text_features, self.motion)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unprojected pooler outputs of the text encoder that the weights for expressions name: K texts -> [K, 768].

        In float32 on the CPU. Raises DynamicIDError if the pipeline has no such encoder.
        """
        origin = self.motion.origin if self.motion else self.saa.origin
        tokenizer, encoder = choose_text_encoder(text_encoders(self.pipe), origin)
        return pooled_features(tokenizer, encoder, texts, self.pipe._execution_device)

    # The pipeline

    def apply(
        self,
        cast: Cast | Sequence[Face],
        options: SAAOptions = SAAOptions(),
        *,
        lora: str = "fused",
        guided: bool | None = None,
        recorder: GateRecorder | None = None,
        warn: Callable[[str], object] | None = None,
        part: Box | None = None,
    ) -> DynamicID:
        """Put the people of ``cast`` into every picture that the pipeline makes from now on; another cast replaces it.

        ``lora``: "fused" into the UNet's weights costs nothing while sampling; "apart" leaves them alone, for weights
        that cannot be changed (quantized). ``guided``: whether the first half of the UNet's rows is unconditional;
        None asks the pipeline at every call. ``recorder`` collects gate maps. ``warn`` gets a sentence for faces that another
        encoder made, and for people for whom no place was found (default: a Python warning). ``part``: y0, x0, y1, x1 as
        fractions of the picture that people have their places in, where a part of it is sampled by itself: a tile, a crop.
        Raises DynamicIDError for an empty cast, faces that do not fit the weights, and UNets that cannot take it.
        """
        cast = _as_cast(cast)
        faces = [person.face for person in cast.people]
        check_faces(faces, self.saa.origin)
        for message in encoder_warnings(faces, self.saa):
            (warn or warnings.warn)(message)
        self._detach()
        try:
            self._fuse(options.lora_strength if lora == "fused" else None)
            self._attachment = attach(
                self.pipe.unet,
                self.saa.saa,
                cast,
                options,
                guided=self._is_guided if guided is None else lambda: guided,
                run=lambda: self.pipe.scheduler.timesteps,  # set anew by each call of the pipeline
                timesteps=self.pipe.scheduler.config.get("num_train_timesteps", 1000),
                lora=lora,
                recorder=recorder,
                part=None if part is None else View.of_box(part),
                warn=warn or warnings.warn,
            )
        except BaseException:
            self.remove()
            raise
        how: dict[str, Any] = {"lora": lora, "guided": guided, "recorder": recorder, "part": part}
        how["warn"] = lambda text: None
        self._again = functools.partial(self.apply, cast, options, **how)
        return self

    @hinting(HINTS)
    def refine(
        self,
        image: Any,
        cast: Cast | Sequence[Face],
        prompt: str,
        how: RefineOptions = RefineOptions(),
        *,
        negative_prompt: str = "",
        steps: int = 20,
        guidance_scale: float = 5.0,
        options: SAAOptions = SAAOptions(),
        lora: str = "fused",
        frame: int = 0,
        watch: Callable[[str], object] = lambda text: None,
    ) -> RefinedPicture:
        """A finished picture (path, PIL image, array) whose faces are sampled again, each enlarged, with its person alone.

        ``prompt``: of one face, for all of them; ``steps``: those that are taken for each; ``options``: how faces act, ``lora``
        as in :meth:`apply`; ``frame``: the picture's number in a batch, for masks that have several; ``watch`` is told who
        comes next. What is applied to the pipeline is so again afterwards.
        Raises DynamicIDError for an empty cast, people whose identity is not known, no detector or one of another recogniser.
        """
        if self.photos.detector is None:
            raise Missing("face detector", "Refining faces needs a face detector.")
        cast, again = _as_cast(cast), self._again
        planned = plan(as_picture(to_rgb(image)), cast, self.photos.detector, how, frame)
        redraw = Redrawer(self, Sampling(prompt, negative_prompt, steps, guidance_scale), options, lora)
        try:
            return refine(planned, redraw, watch)
        finally:
            self.remove()
            if again is not None:
                again()

    def _detach(self) -> None:
        if self._attachment is not None:
            self._attachment.remove()
            self._attachment = None

    def _fuse(self, strength: float | None) -> None:
        """Bring the LoRA in the weights to ``strength``; None: take it out."""
        if self._fused is not None and self._fused.strength != strength:
            self._fused.remove()
            self._fused = None
        if self._fused is None and strength is not None:
            self._fused = FusedLoRA(unwrapped(self.pipe.unet), self.saa.saa, strength)

    def _is_guided(self) -> bool:
        return bool(getattr(self.pipe, "do_classifier_free_guidance", False))

    def remove(self) -> None:
        """Leave the pipeline as it was: its attention processors, its weights to the bit. Without effect if nothing is applied."""
        self._detach()
        self._fuse(None)
        self._again = None

    def __enter__(self) -> DynamicID:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def _as_cast(cast: Cast | Sequence[Face]) -> Cast:
    return cast if isinstance(cast, Cast) else Cast(tuple(Person(face) for face in cast))
