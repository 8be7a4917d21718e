"""The same function on many photos: here, in several processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..types import DynamicIDError
from .analysis import Analyser, Analysis, photo_id
from .sources import Source

CHUNK = 8  # photos that travel together
AHEAD = 4  # chunks that wait for each process

Seen = tuple[Source, str, bytes]  # the photo, its hash, its analysis as bytes


def look(analyser: Analyser, source: Source) -> Seen:
    """Read one photo and analyse it. Raises DynamicIDError, with its name, if the detector fails."""
    try:
        content = source.read()
    except OSError as error:
        return source, "", Analysis(problem=f"cannot be read: {error.strerror or error}").to_bytes()
    try:
        return source, photo_id(content), analyser.analyse(content).to_bytes()
    except DynamicIDError:
        raise
    except Exception as error:  # of a detector that a user named, or of onnxruntime
        raise DynamicIDError(
            f"The detector failed on {source.name} ({type(error).__name__}: {error}). Mend or remove that photo; "
            "the same command continues."
        ) from error


def look_at_all(
    analyser: Analyser, sources: Sequence[Source], jobs: int = 1, ray: str | None = None
) -> Generator[Seen, None, None]:
    """Every source, in no particular order. ``jobs`` processes; ``ray``: on that cluster instead ("": one started here)."""
    if ray is not None:
        yield from _on_ray(analyser, sources, jobs, ray)
    elif jobs == 1 or len(sources) <= CHUNK:
        analyser.load()
        yield from (look(analyser, source) for source in sources)
    else:
        yield from _in_processes(analyser, sources, jobs)


# --- Processes ----------------------------------------------------------------------------------------------------

_analyser: Analyser | None = None  # of a process that works for another


def _begin(analyser: Analyser) -> None:
    global _analyser
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader ends its workers
    _analyser = analyser


def _look_at(chunk: Sequence[Source]) -> list[Seen]:
    assert _analyser is not None
    return [look(_analyser, source) for source in chunk]


def _in_processes(analyser: Analyser, sources: Sequence[Source], jobs: int) -> Generator[Seen, None, None]:
    chunks = iter([sources[n : n + CHUNK] for n in range(0, len(sources), CHUNK)])
    context = multiprocessing.get_context("spawn")  # a fork would inherit onnxruntime's and torch's threads
    pool = ProcessPoolExecutor(jobs, context, _begin, (analyser,))
    waiting: set[Future[list[Seen]]] = set()
    try:
        while True:
            while len(waiting) < AHEAD * jobs and (chunk := next(chunks, None)) is not None:
                waiting.add(pool.submit(_look_at, chunk))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    except BrokenProcessPool as error:
        raise DynamicIDError(
            "A process that looked at photos died, perhaps for lack of memory. The same command continues; give fewer --jobs."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# --- Ray ----------------------------------------------------------------------------------------------------------


class RayLook:
    """What Ray Data keeps one of in each of its actors."""

    def __init__(self, analyser: Analyser) -> None:
        self.analyser = analyser

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        seen = [
            (number, *look(self.analyser, source)[1:]) for number, source in zip(batch["n"], batch["item"], strict=True)
        ]
        return {name: list(column) for name, column in zip(("n", "id", "value"), zip(*seen, strict=True), strict=True)}


def _on_ray(analyser: Analyser, sources: Sequence[Source], jobs: int, address: str) -> Generator[Seen, None, None]:
    """Ray Data over the sources; the files must be where every machine of the cluster can read them."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DynamicIDError(
            '--ray needs the Python package ray. Install it with: python -m pip install "comfyui-dynamicid[cluster]"'
        ) from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address or None, log_to_driver=False, num_cpus=None if address else jobs + 1)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise DynamicIDError(f"The Ray cluster {address!r} cannot be reached ({error}).") from error
    try:
        items = ray.data.from_items([{"n": n, "item": source} for n, source in enumerate(sources)])
        done = items.map_batches(
            RayLook, fn_constructor_args=(analyser,), batch_size=CHUNK, concurrency=jobs, batch_format="numpy"
        )
        for row in done.iter_rows():
            yield sources[int(row["n"])], str(row["id"]), bytes(row["value"])
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise DynamicIDError(" ".join(str(cause).split())[-600:]) from error
    finally:
        if started:
            ray.shutdown()
