"""The text tower: titles in, unit-length embeddings out."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import BatchEncoding

from text.normalize import normalize
from text.pooling import POOLINGS, pool
from text.projection import Dense


class TextEncoder(nn.Module):
    """A transformer, a pooling and an optional projection, with the tokenizer they belong to.

    The same computation as a sentence-transformers model with a Normalize module (Reimers &
    Gurevych, 2019, https://arxiv.org/abs/1908.10084); texts are normalised first.

    Args:
        backbone: A transformers model whose output has ``last_hidden_state`` (B, T, F).
        tokenizer: The one that the backbone was trained with.
        pooling: A name in ``text.pooling.POOLINGS``.
        projection: Layers from the pooled (B, F) to (B, D); none keep F.
        max_tokens: Texts are cut to this many tokens, special tokens included.
        prompt: Put before every text, as some checkpoints were trained to see.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pooling: str,
        projection: Sequence[Dense] = (),
        max_tokens: int,
        prompt: str = "",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        tokenizer.padding_side = "right"
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.projection = nn.Sequential(*projection)
        self.max_tokens = max_tokens
        self.prompt = prompt

    @property
    def dim(self) -> int:
        """Embedding size D."""
        if len(self.projection):
            return int(self.projection[-1].linear.out_features)
        return int(self.backbone.config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit-length embeddings (B, D).

        Args:
            input_ids: Token ids, int64 (B, T).
            attention_mask: 1 for a real token, 0 for padding on the right (B, T).
        """
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        pooled = pool(hidden.last_hidden_state, attention_mask, self.pooling)
        return F.normalize(self.projection(pooled), dim=1)

    def tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        """Return token ids of the normalised texts, as lists that are not padded yet."""
        prompted = [self.prompt + normalize(text) for text in texts]
        return self.tokenizer(prompted, truncation=True, max_length=self.max_tokens)

    @torch.inference_mode()
    def embed(
        self, texts: Sequence[str], *, batch_size: int = 256, device: str | torch.device = "cpu"
    ) -> NDArray[np.float32]:
        """Return unit-length embeddings (N, D); a text's does not depend on its batch (to 1e-5).

        An empty text has the embedding of the special tokens alone: one fixed unit vector per
        encoder. A caller that knows a title is absent should mask it instead. The encoder is moved
        to the device, and left in evaluation mode.

        Args:
            texts: Any strings.
            batch_size: Texts at a time; texts of similar length are put together.
            device: Where to compute.

        Raises:
            ValueError: If ``batch_size`` is not positive, or ``texts`` is one string.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be a sequence of strings, got one string {texts[:40]!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.eval().to(device)
        embeddings = np.empty((len(texts), self.dim), dtype=np.float32)
        if len(texts) == 0:
            return embeddings
        ids = self.tokenize(texts)["input_ids"]
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            input_ids, mask = pad([ids[row] for row in rows], self.tokenizer.pad_token_id)
            output = self(input_ids.to(device), mask.to(device))
            embeddings[rows] = output.float().cpu().numpy()
        return embeddings


def pad(rows: Sequence[Sequence[int]], pad_id: int | None) -> tuple[Tensor, Tensor]:
    """Return token ids (B, T) filled up on the right, and the mask of real tokens (B, T)."""
    lengths = torch.tensor([len(row) for row in rows])
    width = max(1, int(lengths.max()))
    fill = 0 if pad_id is None else pad_id
    input_ids = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
    mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    return input_ids, mask
