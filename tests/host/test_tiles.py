"""People stay in their places where a picture is sampled in tiles: by the host's windows, and by the real tiling packs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from comfy_host import REPOSITORY, Host, captured_log
from PIL import Image
from studio import SMOOTH, Studio, difference

USDU, TILED = os.environ.get("ULTIMATE_SD_UPSCALE_PATH"), os.environ.get("TILED_DIFFUSION_PATH")
SIZE = (16, 16)  # cells of the picture


def load(host: Host, path: str, name: str) -> None:
    """A pack's checkout, as the host finds it among its custom nodes."""
    link = host.base / "custom_nodes" / name
    if not link.exists():
        link.symlink_to(Path(path).resolve(), target_is_directory=True)
        host.load_custom_node(link)


def with_map(studio: Studio, conditioning=None):
    return studio.host.node("DynamicIDTileRegions")(conditioning=conditioning or studio.positive)[0]


def seen(watch, people: int = 2) -> list[torch.Tensor]:
    """Of each row of each model call, how visible each person is in the latent's own cells: [P, N]"""
    tokens = 4
    return [bias[0, :, ::tokens][:, :people].T.exp() for entry in watch.first_layers() for bias in entry["bias"]]


def regions(studio: Studio, view=None, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """How visible each person of the studio's cast is in a part of the picture: [P, N]"""
    weights = studio.host.module("dynamicid_core.regions").region_weights
    place = None if view is None else studio.host.module("dynamicid_core.views").View(*view)
    return weights(studio.cast(), *size, view=place).visible[0]


def distinct(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for tensor in tensors:
        if not any(torch.equal(tensor, other) for other in found):
            found.append(tensor)
    return found


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Whether both hold the same tensors, in any order."""
    return len(found) == len(expected) and all(any(torch.equal(a, b) for b in found) for a in expected)


# Without tiles


def test_a_map_changes_no_bit_where_nothing_is_tiled(studio: Studio) -> None:
    model = studio.apply()
    plain = studio.sample(model, size=SIZE)
    with studio.watch(model) as watch:
        mapped = studio.sample(model, size=SIZE, positive=with_map(studio))
    assert torch.equal(mapped, plain)
    assert watch.roles == [[0, 1]] * 2, "both sides still go into one call"
    both = studio.sample(model, size=SIZE, positive=with_map(studio), negative=with_map(studio, studio.negative))
    assert torch.equal(both, plain)


def test_a_map_changes_no_bit_of_a_model_without_faces(studio: Studio) -> None:
    assert torch.equal(studio.sample(studio.model, positive=with_map(studio)), studio.sample(studio.model))


def test_a_map_leaves_a_controlnet_as_it_was(studio: Studio, smooth) -> None:
    class Adding(studio.host.module("dynamicid_core.hosts.comfy.tiles").ControlBase):
        def get_control(self, x, *args, **kwargs):
            return {"middle": [10 * torch.ones(len(x), 320, 1, 1)], "input": [], "output": []}

    held = [[text, {**values, "control": Adding()}] for text, values in studio.positive]
    results = [studio.sample(smooth, positive=cond) for cond in (studio.positive, held, with_map(studio, held))]
    assert difference(results[1], results[0]) > 0.01 and torch.equal(results[2], results[1])


# The host's own windows


@pytest.mark.parametrize("dim", [2, 3])
def test_context_windows_over_a_picture_see_their_part(studio: Studio, dim: int) -> None:
    model = studio.apply(**SMOOTH)
    (windowed,) = studio.host.node("ContextWindowsManual")(
        model=model, context_length=8, context_overlap=0, context_schedule="standard_static", context_stride=1,
        closed_loop=False, fuse_method="flat", dim=dim, freenoise=False,
    )  # fmt: skip
    with captured_log() as log, studio.watch(windowed) as watch:
        studio.sample(windowed, size=SIZE, steps=1)
    assert not any("DynamicID" in line for line in log)
    for entry in watch.first_layers():  # the host puts a line of the window before in front
        count = entry["cells"] // 16
        first = {8: 0, 9: 7}[count]
        view = (first, 0, count, 16, SIZE) if dim == 2 else (0, first, 16, count, SIZE)
        expected = regions(studio, view, (count, 16) if dim == 2 else (16, count))
        assert torch.equal(entry["bias"][0, 0, :, ::4][:, :2].T.exp(), expected)
    assert {entry["cells"] // 16 for entry in watch.first_layers()} == {8, 9}


# The real Ultimate SD Upscale


@pytest.fixture
def upscale(host: Host, studio: Studio):
    if not USDU:
        pytest.skip("ULTIMATE_SD_UPSCALE_PATH names no checkout of ComfyUI_UltimateSDUpscale")
    load(host, USDU, "UltimateSDUpscale")

    def run(model, positive, **more):
        settings = {
            "seed": 7, "steps": 1, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "mode_type": "Linear", "tile_width": 128, "tile_height": 128, "mask_blur": 0, "tile_padding": 0,
            "seam_fix_mode": "None", "seam_fix_denoise": 1.0, "seam_fix_mask_blur": 0, "seam_fix_width": 64,
            "seam_fix_padding": 0, "force_uniform_tiles": True, "tiled_decode": False, "batch_size": 1,
        }  # fmt: skip
        picture = torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(0))
        return host.node("UltimateSDUpscaleNoUpscale")(
            upscaled_image=picture, model=model, positive=positive, negative=studio.negative, vae=studio.vae,
            **settings | more,
        )[0]  # fmt: skip

    return run


def owners(watch) -> list[set[int]]:
    """Of each row of each model call (once for rows that are alike), who has places of their own in it; where nobody has one, all are visible."""
    alone = [rows * (rows.sum(0) == 1) for rows in seen(watch)]
    return [{person for person, cells in enumerate(rows) if cells.any()} for rows in alone]


@pytest.mark.parametrize("batch", [1, 2])
def test_people_stay_in_their_tiles_of_ultimate_sd_upscale(studio: Studio, upscale, batch: int) -> None:
    """Four tiles of a picture: one person in both of the left, the other in both of the right."""
    people = studio.apply(**SMOOTH)
    with captured_log() as log, studio.watch(people) as watch:
        upscale(people, with_map(studio), batch_size=batch)
    assert not any("DynamicID" in line for line in log)
    found = owners(watch)
    assert found.count({0}) == found.count({1}) == len(found) / 2 > 1
    exact = [regions(studio, (y, x, 16, 16, (32, 32)), (16, 16)) for y in (0, 16) for x in (0, 16)]
    near = [min((rows - other).abs().mean() for other in exact) for rows in seen(watch)]
    assert max(near) < 0.1, "to a cell"  # the pack's own crops are a pixel short
    if batch == 1:
        with studio.watch(people) as watch:
            upscale(people, studio.positive)
        assert owners(watch) == [{0, 1}] * len(found), "without the map each tile is taken for the picture"


def test_the_example_fits_the_pack(host: Host, upscale) -> None:
    Image.new("RGB", (64, 64)).save(host.base / "input/example.png")  # comes with the host, but not with this base
    host.check_graph(json.loads((REPOSITORY / "docs/examples/ultimate_sd_upscale.json").read_text(encoding="utf-8")))


# The real TiledDiffusion


@pytest.fixture
def tiled(host: Host):
    if not TILED:
        pytest.skip("TILED_DIFFUSION_PATH names no checkout of ComfyUI-TiledDiffusion")
    load(host, TILED, "TiledDiffusion")

    def patch(model, method: str, batch: int = 1, width: int = 64, height: int = 128):
        return host.node("TiledDiffusion")(
            model=model, method=method, tile_width=width, tile_height=height, tile_overlap=0, tile_batch_size=batch
        )[0]

    return patch


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", ["MultiDiffusion", "Mixture of Diffusers"])
def test_people_stay_in_their_tiles_of_tiled_diffusion(studio: Studio, tiled, method: str, batch: int) -> None:
    model = tiled(studio.apply(**SMOOTH), method, batch)
    with captured_log() as log, studio.watch(model) as watch:
        studio.sample(model, size=SIZE, steps=1)
    assert not any("DynamicID" in line for line in log)
    expected = [regions(studio, (0, x, 16, 8, SIZE), (16, 8)) for x in (0, 8)]
    assert same(distinct(seen(watch)), expected)


def test_areas_of_a_tiled_picture_see_their_part_of_it(studio: Studio, tiled) -> None:
    model = tiled(studio.apply(**SMOOTH), "MultiDiffusion")
    (area,) = studio.host.node("ConditioningSetArea")(
        conditioning=studio.positive, width=64, height=128, x=64, y=0, strength=1.0
    )
    with studio.watch(model) as watch:
        studio.sample(model, size=SIZE, steps=1, positive=area)
    assert same(distinct(seen(watch)), [regions(studio, (0, x, 16, 8, SIZE), (16, 8)) for x in (0, 8)])


def test_rolled_tiles_of_spot_diffusion_see_what_they_show(studio: Studio, tiled) -> None:
    """Tiles that lie elsewhere at each step, some of them over the picture's edge."""
    model, cells = tiled(studio.apply(**SMOOTH), "SpotDiffusion", 1, 64, 64), []
    run = studio.adapter.run
    original = run.rows_of_call

    def rows_of_call(*args):
        rows = original(*args)
        cells.extend(row.view for row in rows)
        return rows

    run.rows_of_call = rows_of_call
    try:
        with captured_log() as log, studio.watch(model) as watch:
            studio.sample(model, size=SIZE, steps=4)
    finally:
        run.rows_of_call = original
    assert not any("DynamicID" in line for line in log)
    rolled = {(view.top % 8, view.left % 8) for view in cells}
    assert len(rolled) > 2 and all(0 in shift for shift in rolled), "one axis at a time, as the pack rolls the latent"
    assert any(view.left + view.width > 16 or view.top + view.height > 16 for view in cells)
    expected = [regions(studio, (v.top, v.left, 8, 8, SIZE), (8, 8)) for v in cells]
    assert all(any(torch.equal(rows, other) for other in expected) for rows in seen(watch))
