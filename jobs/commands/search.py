"""`vtm search`: the clips and moments of a run that are most like pictures, clips, a span of a video, or a text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.table import print_table

if TYPE_CHECKING:
    from pipeline import TokenCache
    from pipeline.search.match import Match
    from pipeline.search.query import Query
    from pipeline.search.searcher import Searcher

NS_PER_S = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, what to look for, and how to answer."""
    add = parser.add_argument
    add("out", metavar="RUN", help="run folder, or its address")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument(
        "--image", nargs="+", metavar="FILE", help="pictures to search for; several are examples of the same thing"
    )
    wanted.add_argument("--clip", nargs="+", metavar="ID", help="clips of the run to search for")
    wanted.add_argument(
        "--video", metavar="ID|NAME", help="search for a part of this video of the run, from --start to --end"
    )
    wanted.add_argument(
        "--text", metavar="TEXT", help="text to search for; the encoder needs a text tower (CLIP, SigLIP)"
    )
    add("--start", type=float, metavar="S", help="start of the part of --video, in seconds (default: 0)")
    add("--end", type=float, metavar="S", help="end of the part of --video, in seconds (default: the end of the video)")
    add("--top", type=int, default=10, metavar="N", help="number of clips to list")
    add(
        "--rank",
        choices=("tokens", "pooled"),
        default="tokens",
        help="rank by MaxSim over tokens, or by pooled vectors",
    )
    add(
        "--candidates",
        type=int,
        metavar="N",
        help="number of clips, chosen by pooled vectors, whose tokens are compared; 0 compares all (default: 200)",
    )
    add(
        "--keep",
        type=float,
        metavar="SHARE",
        help="cut each clip's tree to this share of its patches before comparing (default: 0.02)",
    )
    add(
        "--index",
        type=Path,
        metavar="FILE",
        help="choose candidates by an approximate index in this file, for 100,000 clips and more; it is made if it is "
        "missing (extra: faiss)",
    )
    add("--sampled", action="store_true", help="report the times of sampled frames only; do not decode the videos")
    add("--encoder", metavar="ID|DIR", help="where the run's encoder is now (default: where it was at extraction)")
    add("--sheet", type=Path, metavar="FILE", help="draw the matches in this picture file, .png or .jpg")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print what was found, best first."""
    from pipeline.cache.token_cache import TokenCache
    from pipeline.search.pictures import read_picture

    _check(options)
    # Before anything that takes long.
    pictures = [read_picture(path) for path in options.image or ()]
    cache = TokenCache(options.out)
    matches = _found(options, cache, pictures)
    if options.sheet is not None:
        _write_sheet(options, cache, pictures, matches)
    if options.json:
        print(json.dumps({"results": [match.to_json() for match in matches]}, indent=1))
        return 0
    print_table(
        ["score", "time", "clip from", "to", "video", "clip id"],
        [
            [f"{m.score:.4f}", _clock(m.time_ns), _clock(m.start_ns), _clock(m.end_ns), m.uri, m.clip_id]
            for m in matches
        ],
    )
    return 0


def _check(options: argparse.Namespace) -> None:
    from pipeline.errors import SettingsError

    if options.video is None and (options.start is not None or options.end is not None):
        raise SettingsError("--start and --end are of --video ID: name the video")
    if options.index is not None and (options.text is not None or options.candidates == 0):
        raise SettingsError("--index chooses candidates by tokens: leave it out with --text and with --candidates 0")
    if options.top < 1:
        raise SettingsError(f"--top {options.top} must be 1 or more")
    if options.sheet is not None and options.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise SettingsError(f"--sheet {options.sheet} must end in .png, .jpg or .jpeg")


def _found(options: argparse.Namespace, cache: TokenCache, pictures: list[Any]) -> list[Match]:
    from pipeline.search.searcher import CANDIDATES, CLIP_KEEP, Searcher

    candidates = CANDIDATES if options.candidates is None else options.candidates
    keep = CLIP_KEEP if options.keep is None else options.keep
    searcher = Searcher(cache, keep=keep, candidates=candidates, index=options.index)
    if options.text is not None:
        from pipeline.search.encoders import embed_text

        return searcher.search_embedding(embed_text(cache.run, options.text, options.encoder), options.top)
    matches = searcher.search(_query(options, searcher, pictures), options.top, options.rank)
    if not pictures or options.sampled:
        return matches
    from pipeline.search.moments import at_very_frames

    return at_very_frames(matches, pictures, options.out, cache.run)


def _query(options: argparse.Namespace, searcher: Searcher, pictures: list[Any]) -> Query:
    from pipeline.search.query import query_of_pictures

    if pictures:
        from pipeline.search.encoders import PictureEncoder

        encoder = PictureEncoder(searcher.cache.run, options.encoder)
        return query_of_pictures([encoder.encode(picture) for picture in pictures])
    if options.clip is not None:
        return searcher.query_of_clips(options.clip)
    start_ns = int((options.start or 0) * NS_PER_S)
    end_ns = int(options.end * NS_PER_S) if options.end is not None else (1 << 62)
    return searcher.query_of_span(_video_id(searcher.cache, options.video), start_ns, end_ns)


def _video_id(cache: TokenCache, named: str) -> str:
    """The id of a video that is named by its id, the beginning of it, its address, or its file's name.

    Raises:
        SettingsError: none is named so, or several are.
    """
    from pipeline.errors import SettingsError

    uris = {facts.video_id: facts.uri for facts in cache.facts()}
    found = [
        video_id
        for video_id, uri in uris.items()
        if video_id.startswith(named) or named in (uri, uri.rpartition("/")[2])
    ]
    if len(found) != 1:
        how_many = "no video" if not found else f"{len(found)} videos"
        raise SettingsError(
            f"--video {named} matches {how_many} of {cache.path}: `vtm inspect {cache.path}` lists them"
        )
    return found[0]


def _write_sheet(options: argparse.Namespace, cache: TokenCache, pictures: list[Any], matches: list[Match]) -> None:
    from jobs.contact_sheet import Tile, contact_sheet
    from pipeline.search.stills import still

    queries = [Tile(picture, "query", str(path)) for picture, path in zip(pictures, options.image or (), strict=True)]
    for clip_id in options.clip or ():
        clip = cache.token_set(cache.position(clip_id))
        middle_ns = (clip.start_ns + clip.end_ns) // 2
        picture = still(options.out, cache.run, clip.video_id, clip.uri, middle_ns)
        queries.append(Tile(picture, f"query: {clip.uri.rpartition('/')[2]}  {_clock(middle_ns)}", clip_id))
    tiles = []
    for number, match in enumerate(matches, 1):
        time_ns = (match.start_ns + match.end_ns) // 2 if match.time_ns is None else match.time_ns
        picture = still(options.out, cache.run, match.video_id, match.uri, time_ns)
        title = f"{number}. {match.uri.rpartition('/')[2]}  {_clock(time_ns)}"
        tiles.append(
            Tile(picture, title, f"{match.score:.4f}, clip {_clock(match.start_ns)} to {_clock(match.end_ns)}")
        )
    options.sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(queries, tiles).save(options.sheet, quality=90)


def _clock(time_ns: int | None) -> str:
    """Hours, minutes and seconds; a dash where there is no time."""
    if time_ns is None:
        return "-"
    minutes, seconds = divmod(time_ns / NS_PER_S, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{seconds:05.2f}" if hours else f"{minutes}:{seconds:05.2f}"
