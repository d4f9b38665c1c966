"""`vtm bench size_bias`: what merged tokens, with and without the log-size bias, change in a frozen model's output.

The unmerged tokens of a run (`--strategy none`) are merged by a tree at several shares and read by a language model,
each time with the same text before and after them. A row says how far the model's predictions on the text after the
video are from those with the unmerged tokens: `plain` attention, attention that knows `sized` tokens, and `spread`,
where every place of the grid has its merged token, so that only what the means lose is left.

Without `--model`, language models of Qwen2.5-VL's architecture and random weights read the tokens of any encoder; their
weights have a deviation of sharpness / sqrt(D), so that attention scores have one of about sharpness squared.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.bench.machine import machine_name
from jobs.bench.numbers import count, share
from jobs.bench.options import add_json_option, add_threads_option
from jobs.bench.output import show
from pipeline import CachedClip, TokenCache
from pipeline.consumers.answers import clips_of
from pipeline.consumers.inputs import video_inputs
from pipeline.consumers.outputs import encoder_output
from pipeline.consumers.positions import prompt_positions
from pipeline.consumers.readers import READERS
from pipeline.consumers.video_sequence import Wanted, video_sequence
from pipeline.errors import SettingsError
from vtm import merge_tree
from vtm.growing import base_for
from vtm.size_attention import size_bias_mask

SHARES = (0.5, 0.25, 0.1, 0.02)
WAYS: tuple[tuple[str, Wanted, bool], ...] = (
    ("plain", "cached", False),
    ("sized", "cached", True),
    ("spread", "spread", False),
)
TEXT_BEFORE, TEXT_AFTER, VOCABULARY = 8, 16, 512
HEAD_DIM = 64
FAMILY = "qwen2_5_vl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", help="a run of --strategy none")
    parser.add_argument(
        "--model",
        help="folder or Hugging Face id of the video-LLM that made it (default: random models, which read any run)",
    )
    parser.add_argument("--question", default="What happens in this video?", help="question that --model is asked")
    parser.add_argument("--video", metavar="ID", help="which video, where the run holds several")
    parser.add_argument("--clips", type=count, default=1, help="clips from the video's start, joined")
    parser.add_argument("--keep", type=share, nargs="+", default=SHARES, help="shares of the tokens left")
    parser.add_argument("--seeds", type=count, default=5, help="random models of each sharpness")
    parser.add_argument(
        "--sharpness",
        type=float,
        nargs="+",
        default=(1.0, 1.5),
        help="of random models: √D times the deviation of weights",
    )
    parser.add_argument("--layers", type=count, default=4, help="blocks of a random model")
    add_threads_option(parser)
    add_json_option(parser)


@torch.inference_mode()
def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    torch.set_num_threads(args.threads)
    cache = TokenCache(args.run)
    clips = clips_of(cache, args.video)[: args.clips]
    if any(len(clip.tokens) < len(clip.group) for clip in clips):
        raise SettingsError(f"{args.run} holds merged tokens: measure on a run of --strategy none")
    rows = []
    for name, frozen in _models(args, cache):
        expected_TV = frozen.read(clips, "cached", False)
        for keep in args.keep:
            merged = [merged_clip(clip, keep) for clip in clips]
            for way, wanted, sized in WAYS:
                found_TV = frozen.read(merged, wanted, sized)
                rows.append({"name": name, "keep": keep, "attention": way, **compared(found_TV, expected_TV)})
    show(_means(rows), machine=machine_name("cpu", args.threads), as_json=args.json)
    return 0


def merged_clip(clip: CachedClip, keep: float) -> CachedClip:
    """The clip with a share of its tokens, merged by a tree."""
    sources_1ND = clip.tokens.float()[None]
    tree = merge_tree(sources_1ND, grid=clip.grid_thw, base=base_for(keep))
    plan = tree.plan(keep=keep).ordered_by_center(clip.grid_thw)
    return replace(
        clip,
        tokens=plan.mean(sources_1ND)[0],
        sizes=plan.sizes[0],
        centers=plan.centers(clip.grid_thw)[0],
        group=plan.group[0],
    )


def compared(found_TV: Tensor, expected_TV: Tensor) -> dict[str, float]:
    """How far predictions are from others, over T tokens of text."""
    found, expected = F.log_softmax(found_TV.double(), dim=-1), F.log_softmax(expected_TV.double(), dim=-1)
    return {
        "kl_nats": float(F.kl_div(found, expected, reduction="none", log_target=True).sum(dim=-1).mean()),
        "same_first": float((found.argmax(dim=-1) == expected.argmax(dim=-1)).double().mean()),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Frozen:
    """A model that reads clips between the same words."""

    model: Any
    run: dict[str, Any]
    words: Tensor | None = None
    """(TEXT_BEFORE + TEXT_AFTER,) of a random model."""
    tokenizer: Any = None
    question: str = ""

    def read(self, clips: list[CachedClip], wanted: Wanted, sized: bool) -> Tensor:
        """(T, V) logits on the text after the video."""
        inputs = self._asked(clips, wanted, sized) if self.words is None else self._random(clips, wanted, sized)
        placeholder = self.model.config.video_token_id if self.words is not None else _placeholder(self.model)
        last = int((inputs["input_ids"][0] == placeholder).nonzero()[-1])
        logits: Tensor = self.model(**inputs).logits[0, last + 1 :].float()
        return logits

    def _asked(self, clips: list[CachedClip], wanted: Wanted, sized: bool) -> dict[str, Any]:
        given = {"model": self.model, "prompt": self.question, "tokenizer": self.tokenizer}
        return video_inputs(clips, run=self.run, wanted=wanted, size_bias=sized, **given)

    def _random(self, clips: list[CachedClip], wanted: Wanted, sized: bool) -> dict[str, Any]:
        assert self.words is not None
        sequence, reader, config = video_sequence(clips, self.run, wanted), READERS[FAMILY], self.model.config
        count = len(sequence.tokens_MD)
        places = torch.full((count,), config.video_token_id)
        ids_L = torch.cat([self.words[:TEXT_BEFORE], places, self.words[TEXT_BEFORE:]])
        is_visual_L = ids_L == config.video_token_id
        sizes_L = torch.ones(len(ids_L), dtype=torch.int64)
        sizes_L[is_visual_L] = sequence.sizes_M
        sized_L = sizes_L if sized else torch.ones_like(sizes_L)
        return {
            "input_ids": ids_L[None],
            "attention_mask": size_bias_mask(sized_L[None], causal=True),
            "position_ids": prompt_positions(reader, is_visual_L, sequence, tokens_per_second=2),
            "mm_encoder_outputs": encoder_output(sequence.tokens_MD.float(), [], reader),
        }


def _placeholder(model: Any) -> int:
    return int(getattr(model.config, f"{READERS[model.config.model_type].modality}_token_id"))


def _models(args: argparse.Namespace, cache: TokenCache) -> Iterator[tuple[str, _Frozen]]:
    import transformers

    if args.model is not None:
        model = transformers.AutoModelForImageTextToText.from_pretrained(args.model).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
        yield args.model, _Frozen(model, cache.run, tokenizer=tokenizer, question=args.question)
        return
    for sharpness in args.sharpness:
        for seed in range(args.seeds):
            torch.manual_seed(seed)
            words = torch.randint(0, VOCABULARY - 8, (TEXT_BEFORE + TEXT_AFTER,))
            model = _random_model(int(cache.run["encoder"]["dim"]), args.layers, sharpness)
            yield f"random, sharpness {sharpness:g}", _Frozen(model, cache.run, words)


def _random_model(dim: int, layers: int, sharpness: float) -> Any:
    """A language model that reads tokens of `dim` channels, and a vision part that is not used."""
    import transformers

    head_dim = math.gcd(dim, HEAD_DIM)
    heads, eighth = dim // head_dim, head_dim // 8
    text = {"hidden_size": dim, "intermediate_size": 2 * dim, "num_hidden_layers": layers, "vocab_size": VOCABULARY}
    text |= {"num_attention_heads": heads, "num_key_value_heads": heads, "bos_token_id": 0, "eos_token_id": 1}
    rotary = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2 * eighth, eighth, head_dim // 2 - 3 * eighth],
    }
    vision = {"depth": 0, "hidden_size": 16, "num_heads": 2, "out_hidden_size": dim, "intermediate_size": 16}
    config = transformers.Qwen2_5_VLConfig(
        text_config=text | {"rope_parameters": rotary, "initializer_range": sharpness / math.sqrt(dim)},
        vision_config=vision,
        image_token_id=VOCABULARY - 2,
        video_token_id=VOCABULARY - 1,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same name, share and attention as one."""
    together: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for row in rows:
        together.setdefault((row["name"], row["keep"], row["attention"]), []).append(row)
    return [
        {"name": name, "keep": keep, "attention": way, "models": len(same)}
        | {figure: round(sum(row[figure] for row in same) / len(same), 4) for figure in ("kl_nats", "same_first")}
        for (name, keep, way), same in together.items()
    ]
