"""The text tower that goes with CLIP's and SigLIP's image embeddings: words -> vectors in the same space.

Letters: B texts, S text tokens, D channels, E channels of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vtm.encoders.checkpoint.files import Checkpoint, open_checkpoint, read_json
from vtm.encoders.checkpoint.state import State, read_text_state
from vtm.encoders.checkpoint.tensor_names import text_name
from vtm.encoders.text.shape import TextShape, text_shape
from vtm.encoders.vit import Block
from vtm.errors import EncoderError

TOKENIZER = "tokenizer.json"


class TextEncoder(nn.Module):
    """A pretrained text tower; made by `load_text_encoder`. Its weights do not train."""

    def __init__(self, shape: TextShape, tokenizer: Tokenizer | None) -> None:
        super().__init__()
        self.shape = shape
        self.tokenizer = tokenizer
        body = shape.body
        self.tokens = nn.Embedding(shape.vocabulary, body.dim)
        self.positions = nn.Parameter(torch.empty(shape.max_tokens, body.dim))
        self.blocks = nn.ModuleList(Block(body) for _ in range(body.num_blocks))
        self.norm = nn.LayerNorm(body.dim, eps=body.norm_eps)
        self.head = nn.Linear(body.dim, body.pooled_dim, bias=not shape.causal)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts, (B, E), not normalised; compare with `EncoderOutput.pooled` by cosine.

        Raises:
            EncoderError: the checkpoint has no tokenizer.json.
        """
        if self.tokenizer is None:
            raise EncoderError(f"the checkpoint has no {TOKENIZER}, so texts cannot be cut into tokens; add the file")
        ids_BS = torch.tensor(self.tokenizer.ids(texts), device=self.positions.device)
        return cast(Tensor, self(ids_BS))

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Token ids, (B, S) int64, to embeddings, (B, E)."""
        length = ids_BS.shape[1]
        x_BSD = self.tokens(ids_BS) + self.positions[:length]
        bias = None
        if self.shape.causal:
            bias = torch.full((1, 1, length, length), float("-inf"), dtype=x_BSD.dtype, device=x_BSD.device).triu(1)
        for block in cast(Sequence[Block], self.blocks):
            x_BSD = block.transform(block.attend(x_BSD, block.project(x_BSD, None), bias))
        normed_BSD = self.norm(x_BSD)
        return cast(Tensor, self.head(normed_BSD[torch.arange(len(ids_BS)), self._pooled_at(ids_BS)]))

    def _pooled_at(self, ids_BS: Tensor) -> Tensor:
        """Which token carries the text: CLIP's end of text, SigLIP's last place."""
        if not self.shape.causal:
            return torch.full_like(ids_BS[:, 0], ids_BS.shape[1] - 1)
        # OpenAI's files name 2 as the end of text, which it is not; there it is the largest id.
        if self.shape.end_id == 2:
            return ids_BS.argmax(dim=1)
        return (ids_BS == self.shape.end_id).int().argmax(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """Texts to rows of token ids of one length."""

    engine: Any
    """A `tokenizers.Tokenizer` that truncates and pads."""
    lower: bool

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        prepared = [text.lower() if self.lower else text for text in texts]
        return [encoding.ids for encoding in self.engine.encode_batch(prepared)]


def load_text_encoder(
    folder_or_id: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> TextEncoder:
    """Load the text tower of a CLIP or SigLIP checkpoint.

    Args:
        folder_or_id: as for `load_encoder`; texts also need its tokenizer.json.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights and the arithmetic.
        device: where the tower lives.

    Raises:
        EncoderError: the checkpoint has no text tower, or has missing or odd tensors.
    """
    checkpoint = open_checkpoint(folder_or_id, revision=revision)
    shape = text_shape(checkpoint.config())
    keys = {name: key for key in checkpoint.files_of() if (name := text_name(key)) is not None}
    with torch.device("meta"):
        tower = TextEncoder(shape, _tokenizer(checkpoint, shape))
    state = read_text_state(checkpoint, keys, shape.body)
    _check(tower, state, checkpoint.name)
    tower.load_state_dict({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, assign=True)
    return tower.requires_grad_(False).eval().to(device)


def _check(tower: TextEncoder, state: State, name: str) -> None:
    expected = tower.state_dict()
    for key in expected.keys() ^ state.keys():
        raise EncoderError(f"{name}: the text tower's {key} is {'missing' if key in expected else 'without a place'}")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            sizes = f"{tuple(tensor.shape)}, config.json makes it {tuple(expected[key].shape)}"
            raise EncoderError(f"{name}: the text tower's {key} has shape {sizes}")


def _tokenizer(checkpoint: Checkpoint, shape: TextShape) -> Tokenizer | None:
    path = checkpoint.folder / TOKENIZER
    if not path.is_file():
        return None
    try:
        from tokenizers import Tokenizer as Engine
    except ImportError as error:
        raise EncoderError("cutting texts into tokens needs tokenizers: pip install 'vtm-pipeline[hub]'") from error
    engine = Engine.from_file(str(path))
    engine.enable_truncation(shape.max_tokens)
    pad = _pad_token(checkpoint.folder / "tokenizer_config.json")
    pad_id = engine.token_to_id(pad) if pad is not None else 0
    engine.enable_padding(length=shape.max_tokens, pad_id=pad_id or 0, pad_token=pad or "")
    return Tokenizer(engine, lower=not shape.causal)


def _pad_token(path: Path) -> str | None:
    pad: str | Mapping[str, Any] | None = read_json(path).get("pad_token") if path.is_file() else None
    return pad["content"] if isinstance(pad, Mapping) else pad
