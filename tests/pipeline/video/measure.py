"""The figures of docs/decode.md: `python -m tests.pipeline.video.measure NAME`, with the film of `make assets`.

Long files are the film looped without coding it again, made by the ffmpeg command in a temporary folder.
"""

from __future__ import annotations

import argparse
import csv
import mmap
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import islice, product
from pathlib import Path
from typing import get_args

import av
import numpy as np
import torch

from jobs.bench.memory import resident_bytes
from pipeline.errors import DecodeError
from pipeline.plan.clips import plan_clips
from pipeline.values import DecoderName, PictureSpec
from pipeline.video import open_video, scan_video, timing_of
from pipeline.video.backend import LibavBackend
from pipeline.video.resize import resize_picture
from pipeline.video.torch_picture import can_show
from pipeline.video_info import VideoInfo
from tests.conftest import FILM, SHARED_DATA
from tests.pipeline.video.corruptions import corrupt_all
from tests.pipeline.video.damage import CODECS, make_originals, print_table, sweep
from tests.pipeline.video.reference import SMALL, full_decode, in_units, source_of
from tests.pipeline.video.test_remote import Server
from tests.synthetic import make_video

SQUARE = PictureSpec(
    resize_mode="exact", resize_height_px=224, resize_width_px=224, crop_height_px=224, crop_width_px=224
)


def damage(folder: Path) -> None:
    """200 single damages a codec, by kind."""
    originals = make_originals(FILM, folder, seconds=4, width_px=192)
    print_table({codec: sweep(originals[codec], folder, 200, seed=7) for codec in CODECS})


def corruptions(folder: Path) -> None:
    """2,000 random corruptions of small files in every codec: clips or a DecodeError, and how long the slowest took."""
    outcomes = corrupt_all(folder, 2000)
    print(outcomes)


def collection(_: Path) -> None:
    """The shared files at 1, 2 and 30 fps against a full decode by PyAV: times, pictures and damage."""
    rows = list(csv.DictReader((SHARED_DATA / "videos" / "manifest.csv").read_text().splitlines()))
    print(f"{'file':52}{'samples':>8}{'wrong time':>11}{'wrong picture':>14}{'counted':>8}")
    totals = np.zeros(4, dtype=int)
    for row in rows:
        path = SHARED_DATA / "videos" / row["file"]
        try:
            info = scan_video(source_of(path))
        except DecodeError as error:
            print(f"{path.name[:50]:52}{error.failure} (manifest: {row['status']})")
            continue
        full = full_decode(info)
        counts = np.zeros(4, dtype=int)
        for fps in (1, 2, 30):
            counts += compared(info, full, Fraction(fps))
        totals += counts
        print(f"{path.name[:50]:52}{counts[0]:8}{counts[1]:11}{counts[2]:14}{counts[3]:8}", flush=True)
    print(f"{len(rows)} files{totals[0]:52}{totals[1]:11}{totals[2]:14}{totals[3]:8}")


def compared(info: VideoInfo, full: dict[int, np.ndarray], fps: Fraction) -> np.ndarray:
    """Samples, those of a wrong time, of a wrong picture that is not counted as damaged, and those that are counted."""
    ticks, number, counts = sorted(full), 0, np.zeros(4, dtype=int)
    for clip in decode_each(info, fps):
        spec, frames, flags = clip
        for place, (tick, repeated) in enumerate(zip(spec.frame_pts, spec.frame_instants, strict=True)):
            for _ in range(repeated):
                due = ticks[max(bisect_right(ticks, ticks[0] + number / fps / info.time_base) - 1, 0)]
                flagged = frames is None or flags[place]
                wrong = frames is None or tick != due or bool((frames[place] != full[due]).any())
                counts += [1, tick != due and not flagged, wrong and not flagged, flagged]
                number += 1
    return counts


def decode_each(info: VideoInfo, fps: Fraction):  # type: ignore[no-untyped-def]
    """Each clip's plan with its frames and flags; None for those of a clip that fails."""
    with open_video(timing_of(info)) as video:
        for spec in plan_clips(info, fps=fps, clip_frames=60):
            try:
                (clip,) = video.decode([spec], SMALL)
                yield spec, clip.frames, clip.is_damaged
            except DecodeError:
                yield spec, None, None


def single_key(folder: Path) -> None:
    """Two hours with one key frame, in 60 units of one open video: how many packets are decoded."""
    path = make_video(folder / "one.mp4", frames=72_000, fps=10, gop=100_000, options={"preset": "ultrafast"})
    info = scan_video(source_of(path))
    sent, send = 0, LibavBackend.send

    def counting(self: LibavBackend, packet: av.Packet) -> object:
        nonlocal sent
        sent += 1
        return send(self, packet)

    LibavBackend.send = counting  # type: ignore[method-assign, assignment]
    units = in_units(plan_clips(info, fps=Fraction(1), clip_frames=60), 2)
    with open_video(timing_of(info)) as video:
        frames = sum(len(clip.frames) for unit in units for clip in video.decode(unit, SMALL))
    print(f"{info.frames_found} frames, {len(info.key_pts)} key, {len(units)} units: {frames} samples, {sent} decoded")


def looped(folder: Path, seconds: int) -> Path:
    """The film again and again."""
    path = folder / f"film_{seconds}.mp4"
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-stream_loop",
        "-1",
        "-i",
        str(FILM),
        "-t",
        str(seconds),
        "-c",
        "copy",
    ]
    subprocess.run([*command, str(path)], check=True)
    return path


def remote(folder: Path) -> None:
    """Three hours over HTTP: bytes of the index, and of clips against those of their groups."""
    path = looped(folder, 3 * 3600)
    with served(path) as server:
        info = scan_video(source_of(server.uri))
        share = server.sent_bytes / path.stat().st_size
        print(f"{path.stat().st_size / 1e6:.0f} MB, indexed with {100 * share:.2f} % in {server.gets} requests")
        clips = plan_clips(info, fps=Fraction(1), clip_frames=60)
        for first in (len(clips) // 4, len(clips) // 2, 3 * len(clips) // 4):
            got = clip_bytes(server, info, first)
            wanted = group_bytes(path, info, clips[first].frame_pts[0], clips[first].frame_pts[-1])
            print(f"clip {first}: {got / 1e6:.2f} MB, {got / wanted:.3f} of its groups")


def containers(folder: Path) -> None:
    """The film in other containers over HTTP: bytes of three of its clips, opening included, over those from mp4."""
    bytes_of: dict[str, list[int]] = {}
    for suffix in (".mp4", ".mkv", ".ts", ".flv"):
        path = folder / f"film{suffix}"
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", str(FILM), "-c", "copy", str(path)], check=True)
        with served(path) as server:
            info = scan_video(source_of(server.uri))
            bytes_of[suffix] = [clip_bytes(server, info, first) for first in (0, 5, 8)]
        ratios = [got / base for got, base in zip(bytes_of[suffix], bytes_of[".mp4"], strict=True)]
        print(
            f"{suffix:6}"
            + "".join(f"{got / 1e6:8.2f} MB {ratio:5.2f}" for got, ratio in zip(bytes_of[suffix], ratios, strict=True))
        )


@contextmanager
def served(path: Path) -> Iterator[Server]:
    """A file on an HTTP server."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        server = Server(body)  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def clip_bytes(server: Server, info: VideoInfo, number: int) -> int:
    """What decoding one clip of 60 s takes from the server, opening the file included."""
    clips = plan_clips(info, fps=Fraction(1), clip_frames=60)
    server.sent_bytes = 0
    with open_video(timing_of(info)) as video:
        list(video.decode(clips[number : number + 1], SMALL))
    return server.sent_bytes


def group_bytes(path: Path, info: VideoInfo, first: int, last: int) -> int:
    """Bytes of the file from the key frame that governs `first` to the one after `last`."""
    keys = info.key_pts
    begin = int(keys[np.searchsorted(keys, first, side="right") - 1])
    end = int(keys[np.searchsorted(keys, last, side="right")])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(begin, stream=stream)
        places = {p.pts: p.pos for p in container.demux(stream) if p.is_keyframe and p.pts is not None and p.pts <= end}
        return int(places[end] - places[begin])


def memory(folder: Path) -> None:
    """The most memory of one process: torch alone, 5 minutes and 3 hours of the film, and 8K."""
    large = folder / "8k.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=size=7680x4320:rate=24:duration=3"]
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            *source,
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            str(large),
        ],
        check=True,
    )
    for name, path in {"5 minutes": looped(folder, 300), "3 hours": looped(folder, 3 * 3600), "8K": large}.items():
        run = subprocess.run(
            [sys.executable, "-m", "tests.pipeline.video.measure", "peak", str(path)], check=True, capture_output=True
        )
        print(name, run.stdout.decode().strip())


def resize(_: Path) -> None:
    """Torch's resize against Pillow's on pictures spread over the film: values that differ, by how much, and times."""
    with av.open(str(FILM)) as container:
        frames = container.decode(video=0)
        pictures = [frame.to_ndarray(format="rgb24") for frame in islice(frames, 0, 9600, 600)]
    torch.set_num_threads(1)
    print(f"{'':14}{'differ':>9}{'most':>6}{'torch ms':>10}{'Pillow ms':>11}   (fastest and median)")
    for name, side in product(("bicubic", "bilinear"), (224, 384)):
        spec = replace(SQUARE, resize_height_px=side, resize_width_px=side, crop_height_px=side, crop_width_px=side)
        spec = replace(spec, interpolation=name)
        both = [
            [timed(picture, replace(spec, resizer=resizer)) for picture in pictures] for resizer in ("torch", "pillow")
        ]
        (ours, our_ms), (pillows, pillow_ms) = (zip(*made, strict=True) for made in both)
        apart = np.abs(np.asarray(ours, np.int16) - np.asarray(pillows, np.int16))
        times = "".join(f"{min(ms):6.1f} {np.median(ms):.1f} " for ms in (our_ms, pillow_ms))
        print(f"{name} {side:<6}{(apart > 0).mean():9.2%}{apart.max():6}{times}")


def timed(picture: np.ndarray, spec: PictureSpec) -> tuple[np.ndarray, float]:
    """The resized picture, and milliseconds."""
    started = time.perf_counter()
    resized = resize_picture(picture, picture.shape[:2], spec)
    return resized, 1000 * (time.perf_counter() - started)


def conversions(_: Path) -> None:
    """Pictures of `--decoder nvdec`, its arithmetic on this CPU, against swscale's: one frame of each shared file."""
    apart: dict[str, list[np.ndarray]] = {}
    for path in [FILM, *sorted(path for path in (SHARED_DATA / "videos").rglob("*") if path.is_file())]:
        try:
            info = scan_video(source_of(path))
            policy = info.picture
            (clip,) = islice(plan_clips(info, fps=Fraction(1), clip_frames=1), 1)
            both = []
            for decoder in get_args(DecoderName):
                with open_video(timing_of(info), decoder) as video:
                    both.append(next(iter(video.decode([clip], SQUARE))).frames.astype(np.int16))
        except (DecodeError, ValueError):
            continue
        if not can_show(policy, SQUARE):
            continue
        odd = info.height_px % 2 or info.width_px % 2
        kind = "odd size" if odd else "8 bits" if "10" not in info.pixel_format else "10 bits"
        difference = np.abs(both[0] - both[1])
        apart.setdefault(kind, []).append(difference)
        print(f"{path.name[:50]:52}{info.pixel_format:14}{difference.max():5}{difference.mean():7.2f}")
    for kind, found in apart.items():
        means = [one.mean() for one in found]
        print(f"{kind}: {len(found)} files, most {max(one.max() for one in found)}, mean {np.mean(means):.2f}")


def motion(_: Path) -> None:
    """CPU seconds of two minutes of the film at 1 fps, with motion and without."""
    info = scan_video(source_of(FILM))
    clips = plan_clips(info, fps=Fraction(1), clip_frames=60)[:2]
    for with_motion in (False, True):
        before = time.process_time()
        with open_video(timing_of(info)) as video:
            list(video.decode(clips, SQUARE, motion=with_motion))
        print(f"motion {with_motion}: {time.process_time() - before:.2f} CPU s")


def peak(path: Path) -> None:
    """Of this process, after scanning a file and decoding three clips spread over it."""
    torch.set_num_threads(1)
    before = resident_bytes("VmHWM")
    info = scan_video(source_of(path))
    clips = plan_clips(info, fps=Fraction(1), clip_frames=60)
    with open_video(timing_of(info)) as video:
        for index in sorted({0, len(clips) // 2, len(clips) - 1}):
            list(video.decode(clips[index : index + 1], SQUARE))
    print(f"{resident_bytes('VmHWM') / 1e6:.0f} MB, {before / 1e6:.0f} MB before")


MEASURES: dict[str, Callable[[Path], None]] = {
    "damage": damage,
    "corruptions": corruptions,
    "collection": collection,
    "single-key": single_key,
    "remote": remote,
    "containers": containers,
    "memory": memory,
    "resize": resize,
    "conversions": conversions,
    "motion": motion,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*MEASURES, "peak"])
    parser.add_argument("path", nargs="?", type=Path)
    args = parser.parse_args()
    if args.name == "peak":
        peak(args.path)
        return
    started, before = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        MEASURES[args.name](Path(folder))
    print(f"wall {time.perf_counter() - started:.0f} s, CPU {time.process_time() - before:.0f} s")


if __name__ == "__main__":
    main()
