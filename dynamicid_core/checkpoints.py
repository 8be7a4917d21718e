"""Files -> strictly loaded networks and what they belong to; trained networks -> files; published pickles -> safetensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from . import __version__
from .bases import base_named, known_base, widths_of
from .face_files import encoder_mismatch
from .files import HUB_FILES, describe, motion_tensors, read_checkpoint, read_metadata
from .networks.face_encoder import FaceEncoder
from .networks.keypoints import KeypointEncoder
from .networks.operations import Operations
from .networks.reconfigurator import Reconfigurator
from .networks.saa import SAAModule
from .origins import Origin, check_recogniser
from .parts import (
    PREFIXES,
    Part,
    Tensors,
    built,
    face_encoder_sizes,
    keypoint_sizes,
    listed,
    reconfigurator_sizes,
    site_sizes,
)
from .saving import header_of, write_safetensors
from .types import DynamicIDError, Face
from .writing import Kind, check_file, check_folder

SAA = "DynamicID's SAA weights (SAA.bin or saa.safetensors)"
IMR = "DynamicID's IMR weights (IMR.bin or imr.safetensors)"
WEIGHTS = Kind("DynamicID weights", lambda path: any(name.startswith(PREFIXES) for name in header_of(path)[0]))


@dataclass(frozen=True)
class SAACheckpoint:
    """The anchoring stage's weights: face encoder and attention sites."""

    face_encoder: FaceEncoder
    saa: SAAModule
    # The encoder's tensors as the file holds them; a host may cast or move the module's own. None: the module's.
    encoder_tensors: Tensors | None = field(default=None, repr=False)
    origin: Origin = Origin()

    @cached_property
    def encoder_hash(self) -> str:
        """sha256 of the projection weights (names, dtypes, shapes, bytes), which face files carry."""
        return hash_of(self.encoder_tensors or self.face_encoder.state_dict())


@dataclass(frozen=True)
class MotionCheckpoint:
    """The reconfiguration stage's weights."""

    reconfigurator: Reconfigurator
    keypoint_encoder: KeypointEncoder
    origin: Origin = Origin()

    @property
    def token_width(self) -> int:
        """Of the face tokens that it edits."""
        return self.reconfigurator.sizes.token

    @property
    def text_width(self) -> int:
        """Of the text feature that it reads, which stands beside the landmarks'."""
        return self.reconfigurator.sizes.motion - self.keypoint_encoder.sizes.out


def hash_of(tensors: Tensors) -> str:
    """sha256 of tensors, by name: names, dtypes, shapes, bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(source: str | os.PathLike[str], read: Callable[[str | os.PathLike[str]], Tensors], what: str) -> Tensors:
    try:
        return read(source)
    except DynamicIDError as error:
        raise DynamicIDError(f"{error} Expected {what}.") from error


def load_saa(
    source: str | os.PathLike[str] | Tensors, operations: Operations = nn, assign: bool = True
) -> SAACheckpoint:
    """Load the face encoder and the attention sites.

    ``source``: a path, or tensors as :func:`files.read_checkpoint` gives them. ``operations``: the namespace of layer
    classes. ``assign``: take the file's tensors over (memory-mapped where possible) instead of copying them.
    Raises DynamicIDError naming the file, what it seems to be and what was expected; also where its metadata say that
    it is for another base model than its tensors.
    """
    return _saa(*_opened(source, read_checkpoint, SAA), operations, assign)


def _saa(
    tensors: Tensors, origin: Origin, name: str, operations: Operations = nn, assign: bool = True
) -> SAACheckpoint:
    encoder, sites = Part(tensors, "proj_module.", SAA, name), Part(tensors, "SAA_module.", SAA, name)
    face_encoder = built(encoder, FaceEncoder, face_encoder_sizes, operations, assign)
    saa = built(sites, SAAModule, site_sizes, nn, assign)  # turned into a host's own patches, so never its layers
    return SAACheckpoint(face_encoder, saa, encoder.tensors, _saa_origin(origin, face_encoder, saa, name))


def _opened(
    source: str | os.PathLike[str] | Tensors, read: Callable[[str | os.PathLike[str]], Tensors], what: str
) -> tuple[Tensors, Origin, str]:
    """A file's tensors, what its metadata say, and what to call it."""
    if isinstance(source, Mapping):
        return source, Origin(), "The file"
    return _read(source, read, what), Origin.from_metadata(read_metadata(source), str(source)), str(source)


def _saa_origin(origin: Origin, face_encoder: FaceEncoder, saa: SAAModule, name: str) -> Origin:
    """The origin with what the tensors tell. Raises DynamicIDError where they contradict it, or each other."""
    widths, text_widths = widths_of(saa)
    tokens = face_encoder.sizes.width
    if any(width != tokens for width in text_widths):
        raise DynamicIDError(
            f"{name} does not fit {SAA}: its face encoder makes tokens of width {tokens}, but its attention sites take "
            f"{', '.join(map(str, sorted(set(text_widths))))}. Get the file again."
        )
    _check_base(origin, widths, text_widths, name)
    base = origin.base or _family(widths, text_widths)
    return replace(origin, base=base, widths=widths, text_widths=text_widths)


def _family(widths: tuple[int, ...], text_widths: tuple[int, ...]) -> str:
    base = known_base(widths, text_widths)
    return base.name if base else ""


def _check_base(origin: Origin, widths: tuple[int, ...], text_widths: tuple[int, ...], name: str) -> None:
    """Raise DynamicIDError where metadata name another base model than the tensors were made for."""
    said = base_named(origin.base)
    fits_family = said is None or (said.widths, {said.text_width}) == (widths, set(text_widths))
    if fits_family and (not origin.widths or (origin.widths, origin.text_widths) == (widths, text_widths)):
        return
    raise DynamicIDError(
        f"{name} contradicts itself: its metadata say that it is for {origin.base or 'another model'}, but its tensors are for "
        f"{_family(widths, text_widths) or f'{len(widths)} other cross attentions'}. Get the file again."
    )


def load_motion(
    source: str | os.PathLike[str] | Tensors, operations: Operations = nn, assign: bool = True
) -> MotionCheckpoint:
    """Load the IMR and the key point encoder: from one file, or from ``key_point_encoder.bin`` beside ``IMR.bin``.

    Arguments and errors as in :func:`load_saa`.
    """
    return _motion(*_opened(source, motion_tensors, IMR), operations, assign)


def _motion(
    tensors: Tensors, origin: Origin, name: str, operations: Operations = nn, assign: bool = True
) -> MotionCheckpoint:
    imr = Part(tensors, "IMR.", IMR, name)
    if not any(key.startswith("key_point_encoder.") for key in tensors):
        raise DynamicIDError(f"{name} has no key point encoder; put {HUB_FILES[2]} into the same folder.")
    keypoints = Part(
        tensors, "key_point_encoder.", f"the key point encoder ({HUB_FILES[2]} beside it, or its own)", name
    )
    return MotionCheckpoint(
        built(imr, Reconfigurator, reconfigurator_sizes, operations, assign),
        built(keypoints, KeypointEncoder, keypoint_sizes, operations, assign),
        origin,
    )


def write_saa(path: str | os.PathLike[str], face_encoder: FaceEncoder, saa: SAAModule, origin: Origin) -> Path:
    """Write trained weights as :func:`load_saa` reads them, in the dtypes that they have.

    ``origin``: of the UNet that they were trained with (:meth:`bases.UNetLayout.origin`); the hash of the encoder and
    this version are filled in. Raises DynamicIDError for an origin of other sites, and if it cannot be written.
    """
    tensors = _prefixed("proj_module.", face_encoder), _prefixed("SAA_module.", saa)
    origin = _saa_origin(origin, face_encoder, saa, str(path))
    origin = replace(origin, encoder=hash_of(face_encoder.state_dict()), version=origin.version or __version__)
    return write_safetensors(path, tensors[0] | tensors[1], {"format": "pt", **origin.to_metadata()}, kind=WEIGHTS)


def write_motion(
    path: str | os.PathLike[str], reconfigurator: Reconfigurator, keypoint_encoder: KeypointEncoder, origin: Origin
) -> Path:
    """Write trained weights as :func:`load_motion` reads them, in the dtypes that they have.

    ``origin``: that of the anchored checkpoint whose tokens they edit (:func:`load_saa`), with this training's step and
    ``text_feature``; this version is filled in. Raises DynamicIDError if it cannot be written.
    """
    tensors = _prefixed("IMR.", reconfigurator) | _prefixed("key_point_encoder.", keypoint_encoder)
    origin = replace(origin, version=origin.version or __version__)
    return write_safetensors(path, tensors, {"format": "pt", **origin.to_metadata()}, kind=WEIGHTS)


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def check_faces(faces: Iterable[Face], origin: Origin) -> None:
    """Raise DynamicIDError for a face whose recogniser the weights do not know."""
    for face in faces:
        check_recogniser(face.recogniser, origin, f"The face {face.name!r}" if face.name else "A face")


def encoder_warnings(faces: Iterable[Face], saa: SAACheckpoint) -> list[str]:
    """A sentence for each face that another encoder than the loaded one made; it acts, but may look less alike."""
    of_encoders = {face.encoder: face for face in faces}.values()
    found = (
        encoder_mismatch(f.encoder, saa.encoder_hash, f"Face {f.name!r}" if f.name else "A face") for f in of_encoders
    )
    return [message for message in found if message]


def motion_warning(saa: SAACheckpoint, motion: MotionCheckpoint | None) -> str | None:
    """A warning when the weights for expressions were trained with another face encoder, else None.

    Published ones do not say with which, and are taken at their word.
    """
    trained = motion.origin.encoder if motion else ""
    if not trained or trained == saa.encoder_hash:
        return None
    return (
        f"The weights for expressions (IMR) were trained with the face encoder {trained[:12]}, but the loaded one is "
        f"{saa.encoder_hash[:12]}; edited faces may come out wrong. Load the IMR file that belongs to this SAA file."
    )


def convert(sources: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Published pickles -> ``saa.safetensors`` and ``imr.safetensors``, bit for bit, in ``folder`` or beside them.

    ``key_point_encoder.bin`` is looked for beside ``IMR.bin`` when it is not among ``sources``. Files that are not
    DynamicID's, or not complete, are refused before anything is written, and only DynamicID's weights are replaced.
    """
    if not sources:
        raise DynamicIDError(f"There is nothing to convert. Name at least one of {', '.join(HUB_FILES)}.")
    target, written = Path(folder or Path(sources[0]).parent), []
    check_folder(target)
    tensors = _gather(sources)
    name = ", ".join(map(str, sources))
    if strange := [key for key in tensors if not key.startswith(PREFIXES)]:
        raise DynamicIDError(f"{name} holds tensors that are not DynamicID's: {listed(strange)}.")
    for file, prefixes, load in (
        ("saa.safetensors", ("proj_module.", "SAA_module."), _saa),
        ("imr.safetensors", ("IMR.", "key_point_encoder."), _motion),
    ):
        if part := {k: v for k, v in tensors.items() if k.startswith(prefixes)}:
            check_file(target / file, WEIGHTS, sources)
            metadata = _metadata_of(sources, prefixes)
            load(part, Origin.from_metadata(metadata, name), name)  # a file that does not load is not worth converting
            written.append((target / file, part, {"format": "pt", **metadata}))
    return [write_safetensors(*what, kind=WEIGHTS, inputs=sources) for what in written]


def _metadata_of(sources: Sequence[str | os.PathLike[str]], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Of the file among ``sources`` that holds tensors of these prefixes; published pickles have none."""
    for source in sources:
        if (known := read_metadata(source)) and any(name.startswith(prefixes) for name in read_checkpoint(source)):
            return known
    return {}


def _gather(sources: Sequence[str | os.PathLike[str]]) -> dict[str, Tensor]:
    """All tensors of DynamicID files; the key point encoder beside an IMR file joins unless it is given."""
    tensors: dict[str, Tensor] = {}
    expected, imr_file = f"one of {', '.join(HUB_FILES)}", None
    for source in sources:
        part = _read(source, read_checkpoint, expected)
        if not any(name.startswith(PREFIXES) for name in part):
            raise DynamicIDError(f"{source} is {describe(part)}; expected {expected}.")
        if not tensors.keys().isdisjoint(part):
            raise DynamicIDError(
                f"{source} is of the same kind as a file before it; convert one of each kind at a time."
            )
        if any(name.startswith("IMR.") for name in part):
            imr_file = source
        tensors |= part
    if imr_file and not any(name.startswith("key_point_encoder.") for name in tensors):
        tensors |= motion_tensors(imr_file)
    return tensors
