"""`vtm replay`: one clip of a run decoded and encoded again in this process, where a debugger can watch it."""

from __future__ import annotations

import argparse
import faulthandler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run folder and the clip."""
    parser.add_argument("out", metavar="RUN", help="run folder, or its address")
    parser.add_argument("id", metavar="ID", help="a clip id, or a video id to scan the video again")
    parser.add_argument("--decode-only", action="store_true", help="do not encode")


def run(options: argparse.Namespace) -> int:
    """Say what becomes of the clip; nothing is written. Errors are those of the run."""
    from pipeline.replay import replay_clip, replay_scan

    # A decoder that takes this process with it leaves the place in which it did.
    faulthandler.enable()
    video_id, _, index = options.id.partition("-")
    if index:
        print(replay_clip(options.out, video_id, index, encode=not options.decode_only))
    else:
        print(replay_scan(options.out, video_id))
    return 0
