"""`vtm bench search`: whether search finds what it should, and how long it takes.

Three kinds of rows, for what is given. `frames`: frames cut from the videos of a run at random times, at another size
and as JPEG; how many find their clip, and their time to a second, by sampled frames alone and with a look into the
video. `pictures`: labelled pictures, each a clip of one frame whose tokens are cut to a share; how many of the nearest
have the label, by pooled vectors and by MaxSim. `clips`: seconds to load a made-up cache and to search it.

Pictures lie in FOLDER/gallery/LABEL/ and FOLDER/query/LABEL/. Every other query is of the half on which constants were
chosen, the rest of the other.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.bench.machine import machine_name
from jobs.bench.numbers import count, share
from jobs.bench.options import add_json_option
from jobs.bench.output import show
from jobs.bench.timing import timed
from pipeline import TokenCache
from pipeline.errors import InputError, SettingsError
from pipeline.plan.index_file import read_index
from pipeline.search.encoders import PictureEncoder
from pipeline.search.moments import at_the_very_frame
from pipeline.search.pictures import read_picture
from pipeline.search.query import Query, query_of_pictures
from pipeline.search.searcher import Match, Rank, Searcher
from pipeline.search.stills import frames_at, times_ns, whole_pictures
from pipeline.settings import Recipe
from pipeline.shards.manifest import write_shard
from pipeline.values import PictureSpec, TokenSet

SIZES_PX = ((180, 320), (135, 240), (240, 426), (480, 854))
QUALITIES = (25, 40, 60, 85)
SHARD_CLIPS = 64
QUERIES = 11
NS_PER_S = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--run", metavar="DIR", help="run folder: cut frames from its videos and look for them")
    add("--queries", type=count, default=50, help="frames to look for")
    add("--pictures", type=Path, metavar="FOLDER", help="folder of labelled pictures")
    add("--encoder", help="folder or Hugging Face id, for --pictures")
    add("--layer", type=int, default=-1, help="block whose output is taken, for --pictures; -1 is the last")
    add("--keep", type=share, default=0.02, help="share of a picture's tokens left, for --pictures")
    add("--clips", type=count, metavar="N", help="make up a cache of so many clips and search it")
    add("--index", action="store_true", help="search the made-up cache by an approximate index too (extra: faiss)")
    add("--tokens-per-clip", type=count, default=308, help="tokens of a made-up clip")
    add("--dim", type=count, default=384, help="channels of a made-up token")
    add("--seed", type=int, default=0, help="of the choice of frames, and of made-up tokens")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for and print; returns the exit code."""
    rows: list[dict[str, Any]] = []
    if not (args.run or args.pictures or args.clips):
        raise SettingsError(
            "there is nothing to measure: give --run DIR, --pictures FOLDER with --encoder, or --clips N"
        )
    if args.pictures and not args.encoder:
        raise SettingsError("--pictures FOLDER needs --encoder DIR|ID")
    if args.run:
        rows.append(find_frames(args.run, args.queries, args.seed))
    if args.pictures:
        rows += label_pictures(args.pictures, args.encoder, args.layer, args.keep)
    if args.clips:
        rows.append(search_many(args.clips, args.tokens_per_clip, args.dim, args.seed, by_index=args.index))
    show(rows, machine=machine_name(), as_json=args.json)
    return 0


def find_frames(out: str, num_frames: int, seed: int) -> dict[str, Any]:
    """How many frames cut from the run's videos are found."""
    cache = TokenCache(out)
    searcher, encoder = Searcher(cache), PictureEncoder(cache.run)
    random = np.random.default_rng(seed)
    clip = sampled = looked_up = 0
    for position in random.integers(len(cache), size=num_frames):
        of = cache.token_set(int(position))
        picture, true_ns = _cut_frame(out, cache.run, of, random)
        match = searcher.search(query_of_pictures([encoder.encode(picture)]), top=1)[0]
        exact = at_the_very_frame(match, [picture], out, cache.run)
        clip += match.clip_id == of.clip_id
        sampled += _is_within_a_second(match, true_ns)
        looked_up += _is_within_a_second(exact, true_ns)
    return {
        "name": "frames",
        "frames": num_frames,
        "right_clip": clip,
        "right_second_sampled": sampled,
        "right_second": looked_up,
    }


def _cut_frame(
    out: str, run: dict[str, Any], clip: TokenSet, random: np.random.Generator
) -> tuple[NDArray[np.uint8], int]:
    """A frame of a clip, shrunk and through JPEG; and its time."""
    info = read_index(out, clip.video_id, clip.uri)
    time_F = times_ns(info)
    inside = np.flatnonzero((time_F >= clip.start_ns) & (time_F < clip.end_ns))
    number = int(random.choice(inside))
    spec = whole_pictures(run, *SIZES_PX[random.integers(len(SIZES_PX))])
    stream = io.BytesIO()
    frame_HW3 = frames_at(info, [int(info.frame_pts[number])], spec)[0]
    Image.fromarray(frame_HW3).save(stream, "JPEG", quality=QUALITIES[random.integers(len(QUALITIES))])
    return np.array(Image.open(stream)), int(time_F[number])


def _is_within_a_second(match: Match, true_ns: int) -> bool:
    return match.time_ns is not None and abs(match.time_ns - true_ns) <= NS_PER_S


def label_pictures(folder: Path, encoder_name: str, layer: int, keep: float) -> list[dict[str, Any]]:
    """How many of the nearest pictures of the gallery have the query's label."""
    recipe = Recipe(encoder=encoder_name, layer=layer, strategy="tree", keep=keep, clip_frames=1, embedding="never")
    run = _described(recipe)
    encoder = PictureEncoder(run)
    with tempfile.TemporaryDirectory() as out:
        gallery = _labelled(folder / "gallery")
        if not gallery:
            raise InputError(f"{folder / 'gallery'} holds no pictures as CLASS/NAME.jpg")
        clips = [
            _merged(encoder.encode(read_picture(path)), recipe, number) for number, (path, _) in enumerate(gallery)
        ]
        write_shard(Path(out), "0" * 16, clips, [], run, ("parquet",))
        (Path(out) / "run.json").write_text(json.dumps(run))
        searcher = Searcher(TokenCache(out), candidates=0)
        labels = [label for _, label in gallery]
        hits: dict[tuple[Rank, str], list[list[bool]]] = {}
        for number, (path, label) in enumerate(_labelled(folder / "query")):
            query = query_of_pictures([encoder.encode(read_picture(path))])
            for rank in ("pooled", "tokens"):
                found = searcher.search(query, top=5, rank=rank)
                half = "chosen on" if number % 2 == 0 else "held out"
                hits.setdefault((rank, half), []).append([labels[m.position] == label for m in found])
    return [
        {
            "name": f"pictures, by {rank}",
            "half": half,
            "queries": len(right),
            "keep": keep,
            "nearest_share": round(float(np.mean([row[0] for row in right])), 4),
            "five_nearest_share": round(float(np.mean(right)), 4),
        }
        for (rank, half), right in sorted(hits.items(), key=lambda item: item[0][::-1])
    ]


def _labelled(folder: Path) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(folder.glob("*/*"))]


def _described(recipe: Recipe) -> dict[str, Any]:
    """run.json's content of a run with this recipe on this machine."""
    from pipeline.encode.describe import describe_encoder, picture_json
    from pipeline.encode.devices import this_device
    from pipeline.run_description import RunDescription

    encoder, picture = describe_encoder(recipe, this_device("cpu"))
    return RunDescription(recipe=recipe, encoder=encoder, picture=picture_json(picture)).to_json()


def _merged(picture: TokenSet, recipe: Recipe, number: int) -> TokenSet:
    """A picture of unmerged tokens as the run would store it."""
    import torch

    from pipeline.cache.cut import stored_tokens
    from vtm import merge_tree
    from vtm.growing import base_for

    assert recipe.keep is not None, "the bench gives a share"
    patches_1ND = torch.from_numpy(picture.tokens.astype(np.float32))[None]
    tree = merge_tree(patches_1ND, grid=picture.grid_thw, base=base_for(recipe.keep))
    left = max(1, round(recipe.keep * patches_1ND.shape[1]))
    tree = tree.coarsen(num_tokens=left).ordered_by_center(picture.grid_thw)
    plan = tree.base
    tokens, scale = stored_tokens(plan.mean(patches_1ND)[0], recipe.dtype)
    return replace(
        picture,
        clip_id=f"{'0' * 32}-{number:06d}",
        video_id="0" * 32,
        clip_index=number,
        tokens=tokens,
        tokens_dtype=recipe.dtype,
        tokens_scale=scale,
        sizes=plan.sizes[0].numpy().astype(np.int32),
        centers=plan.centers(picture.grid_thw)[0].numpy(),
        group=plan.group[0].numpy().astype(np.uint16),
        parent=tree.parents[0].numpy().astype(np.uint16),
        loss=tree.losses[0].numpy(),
    )


def search_many(num_clips: int, num_tokens: int, dim: int, seed: int, *, by_index: bool = False) -> dict[str, Any]:
    """Seconds to open a cache of made-up clips, and for queries by clip, the first of which find nothing in memory."""
    sides: dict[str, Any] = dict.fromkeys(
        ("resize_height_px", "resize_width_px", "crop_height_px", "crop_width_px"), 256
    )
    picture = asdict(PictureSpec(resize_mode="exact", patch_px=16, **sides))
    run = {
        "schema_version": 2,
        "fingerprint": "0" * 16,
        "settings": {"strategy": "tree", "clip_frames": 60},
        "fingerprinted": {"picture": picture},
        "encoder": {"name": "made", "dim": dim},
        "versions": {},
    }
    with tempfile.TemporaryDirectory() as out:
        for shard in range(-(-num_clips // SHARD_CLIPS)):
            numbers = range(shard * SHARD_CLIPS, min((shard + 1) * SHARD_CLIPS, num_clips))
            write_shard(
                Path(out), f"{shard:016x}", list(_made_up(numbers, num_tokens, dim, seed)), [], run, ("parquet",)
            )
        (Path(out) / "run.json").write_text(json.dumps(run))
        searcher, open_s = timed(lambda: Searcher(TokenCache(out)))
        wanted = [int(number) for number in np.random.default_rng(seed).choice(num_clips, QUERIES)]
        queries = [_picture_of(searcher.cache, number) for number in wanted]
        cold, cold_cpu, _ = _timed(searcher, queries[:1])
        _, load_s = timed(searcher.load)
        warm, warm_cpu, found = _timed(searcher, queries)
        indexed = _search_by_index(Path(out), queries, wanted) if by_index else {}
    return {
        "name": "clips",
        "clips": num_clips,
        "tokens_per_clip": num_tokens,
        "dim": dim,
        "queries": QUERIES,
        "right_clip": sum(got == number for got, number in zip(found, wanted, strict=True)),
        "open_s": round(open_s, 3),
        "unread_query_s": round(cold[0], 3),
        "unread_query_cpu_s": round(cold_cpu[0], 3),
        "load_s": round(load_s, 3),
        "median_query_s": round(float(np.median(warm)), 3),
        "slowest_query_s": round(max(warm), 3),
        "median_query_cpu_s": round(float(np.median(warm_cpu)), 3),
        **indexed,
    }


def _search_by_index(out: Path, queries: Sequence[Query], wanted: Sequence[int]) -> dict[str, Any]:
    """Seconds to make an index, to open it again, and for queries that read their candidates' tokens."""
    path = out / "clips.faiss"
    _, make_s = timed(lambda: Searcher(TokenCache(out), index=path))
    searcher, open_s = timed(lambda: Searcher(TokenCache(out), index=path))
    wall, _, found = _timed(searcher, queries)
    return {
        "index_make_s": round(make_s, 3),
        "index_bytes": path.stat().st_size,
        "index_open_s": round(open_s, 3),
        "index_median_query_s": round(float(np.median(wall)), 3),
        "index_slowest_query_s": round(max(wall), 3),
        "index_right_clip": sum(got == number for got, number in zip(found, wanted, strict=True)),
    }


def _timed(searcher: Searcher, queries: Sequence[Query]) -> tuple[list[float], list[float], list[int]]:
    """Wall and CPU seconds of each query, and the position of the clip that it finds first."""
    wall, cpu, found = [], [], []
    for query in queries:
        began_cpu_s = time.process_time()
        matches, wall_s = timed(partial(searcher.search, query))
        cpu.append(time.process_time() - began_cpu_s)
        wall.append(wall_s)
        found.append(matches[0].position)
    return wall, cpu, found


def _picture_of(cache: TokenCache, position: int) -> Query:
    """A frame of a made-up clip, as a picture's query is made."""
    clip = cache.token_set(position)
    tokens = clip.tokens[clip.group.reshape(60, -1)[29]].astype(np.float32)
    pooled = tokens.mean(axis=0)
    picture = replace(
        clip,
        grid_thw=(1, 16, 16),
        tokens=tokens,
        tokens_dtype="float32",
        group=np.arange(256, dtype=np.uint16),
        pooled=(pooled / np.linalg.norm(pooled)).astype(np.float32),
    )
    return query_of_pictures([picture])


def _made_up(numbers: Sequence[int], num_tokens: int, dim: int, seed: int) -> Iterator[TokenSet]:
    """Clips of a minute with 16 x 16 patches a frame, each around a direction of its own."""
    for number in numbers:
        random = np.random.default_rng((seed, number))
        around = random.normal(size=dim) + 0.7 * random.normal(size=(num_tokens, dim))
        group = np.sort(np.concatenate([np.arange(num_tokens), random.integers(0, num_tokens, 15360 - num_tokens)]))
        mean = around.mean(axis=0)
        yield TokenSet(
            clip_id=f"{'0' * 32}-{number:06d}",
            video_id="0" * 32,
            uri="made-up.mp4",
            clip_index=number,
            start_ns=number * 60 * NS_PER_S,
            end_ns=(number + 1) * 60 * NS_PER_S,
            frame_time_ns=(number * 60 + np.arange(60)) * NS_PER_S,
            grid_thw=(60, 16, 16),
            tokens=around.astype(np.float16),
            tokens_dtype="float16",
            tokens_scale=None,
            sizes=np.bincount(group, minlength=num_tokens).astype(np.int32),
            centers=np.zeros((num_tokens, 3), np.float32),
            group=group.astype(np.uint16),
            parent=np.minimum(np.arange(num_tokens) + 1, num_tokens - 1).astype(np.uint16),
            loss=np.append(np.arange(1, num_tokens), np.inf).astype(np.float32),
            pooled=(mean / np.linalg.norm(mean)).astype(np.float32),
            fidelity=0.9,
            motion_source="none",
            damaged_frames=0,
        )
