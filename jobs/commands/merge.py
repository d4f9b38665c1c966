"""`vtm merge`: tokens of whole videos, from the clips of a run folder, without decoding again."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from pipeline.counted import counted

if TYPE_CHECKING:
    from pipeline import TokenCache

DEFAULT_TOKENS = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and how far."""
    parser.add_argument("out", metavar="RUN", help="run folder of --strategy tree, in Parquet")
    parser.add_argument(
        "--tokens-per-video",
        type=int,
        default=DEFAULT_TOKENS,
        metavar="N",
        help="tokens of each video",
    )
    parser.add_argument(
        "--lloyd",
        type=int,
        default=0,
        metavar="STEPS",
        help="number of Lloyd steps that refine the result, such as 2",
    )
    parser.add_argument("--video", nargs="+", metavar="ID", help="merge only these videos")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Merge each video whose tokens are not there yet."""
    from pipeline.cache.token_cache import TokenCache
    from pipeline.errors import SettingsError

    cache = TokenCache(options.out)
    positions = cache.video_positions
    wanted = options.video or list(positions)
    if missing := [video_id for video_id in wanted if video_id not in positions]:
        raise SettingsError(f"--video {missing[0]} is not a video with clips in {options.out}: see `vtm inspect`")
    rows = []
    for video_id in wanted:
        rows.append(_merge(cache, video_id, positions[video_id], options.tokens_per_video, options.lloyd))
        if not options.json:
            print(_line(rows[-1]))
    if options.json:
        print(json.dumps({"videos": rows}, indent=1))
    return 0


def _line(row: dict[str, Any]) -> str:
    took = f"{row['wall_s']:.1f} s" if row["made"] else "already there"
    stored, clips = counted(row["stored_tokens"], "token"), counted(row["clips"], "clip")
    return f"{row['uri']}: {stored} of {clips} -> {row['tokens']}, fidelity {row['fidelity']:.4f}, {took}"


def _merge(cache: TokenCache, video_id: str, positions: list[int], num_tokens: int, lloyd_steps: int) -> dict[str, Any]:
    """One video's tokens, made unless they are there: what there is to say of them."""
    from pipeline.cache.video_tokens import merge_video
    from pipeline.shards.video_table import is_made, read_video, size_of, write_video

    began_s = time.perf_counter()
    made_by = {
        "fingerprint": cache.run["fingerprint"],
        "tokens_per_video": num_tokens,
        "lloyd_steps": lloyd_steps,
        "clips": [cache.clip_ids[position] for position in positions],
    }
    made = not is_made(cache.path, video_id, made_by)
    if made:
        tubelet_frames = cache.run["encoder"].get("tubelet_frames", 1)
        video = merge_video(lambda: map(cache.token_set, positions), num_tokens, lloyd_steps, tubelet_frames)
        write_video(cache.path, video, made_by)
    else:
        video = read_video(cache.path, video_id)
    return {
        "video_id": video_id,
        "uri": video.uri,
        "clips": len(video.clip_ids),
        "stored_tokens": len(video.map),
        "tokens": len(video.tokens),
        "fidelity": video.fidelity,
        "size_bytes": size_of(cache.path, video_id),
        "made": made,
        "wall_s": time.perf_counter() - began_s,
    }
