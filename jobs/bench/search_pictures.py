"""Search for labelled pictures, each a clip of one frame whose tokens are cut to a share.

Pictures lie in FOLDER/gallery/LABEL/ and FOLDER/query/LABEL/. Every other query is of the half on which constants were
chosen, the rest of the other.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import TokenCache
from pipeline.errors import InputError
from pipeline.search.encoders import PictureEncoder
from pipeline.search.pictures import read_picture
from pipeline.search.query import query_of_pictures
from pipeline.search.searcher import Rank, Searcher
from pipeline.settings import Recipe
from pipeline.shards.manifest import write_shard
from pipeline.values import TokenSet


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

    from pipeline.cache.token_values import stored_tokens
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
