"""The text tower: titles in, unit-length embeddings out."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import BatchEncoding

from text.errors import InvalidArgumentError
from text.networks.pooling import POOLINGS, pool
from text.networks.projection import Dense
from text.tokens.normalize import normalize


class TextEncoder(nn.Module):
    """A transformer, a pooling and an optional projection, with the tokenizer they belong to.

    The same computation as a sentence-transformers model with a Normalize module (Reimers &
    Gurevych, 2019, https://arxiv.org/abs/1908.10084); texts are normalised first.

    Args:
        backbone: A transformers model whose output has ``last_hidden_state`` (B, T, F).
        tokenizer: The one that the backbone was trained with.
        pooling: A name in ``text.networks.pooling.POOLINGS``.
        projection: Layers from the pooled (B, F) to (B, D); none keep F.
        max_tokens: Texts are cut to this many tokens, special tokens included.
        prompt: Put before every text, as some checkpoints were trained to see.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pooling: str,
        projection: Sequence[Dense] = (),
        max_tokens: int,
        prompt: str = "",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InvalidArgumentError(
                f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}"
            )
        tokenizer.padding_side = "right"
        self.backbone: PreTrainedModel = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.projection = nn.Sequential(*projection)
        self.max_tokens = max_tokens
        self.prompt = prompt

    @property
    def dim(self) -> int:
        """Embedding size D."""
        layers = self.dense_layers
        return layers[-1].linear.out_features if layers else int(self.backbone.config.hidden_size)

    @property
    def dense_layers(self) -> list[Dense]:
        """Layers of the projection, first to last."""
        return [layer for layer in self.projection if isinstance(layer, Dense)]

    @property
    def pad_id(self) -> int:
        """Token id to pad with; any does where the tokenizer has none, for the mask hides it."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

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
        encoding: BatchEncoding = self.tokenizer(
            prompted, truncation=True, max_length=self.max_tokens
        )
        return encoding

    def embed(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Return unit-length embeddings, float32 (N, D), the same whatever the batch (to 1e-5).

        An empty text has the embedding of the special tokens alone: one fixed unit vector per
        encoder. A caller that knows a title is absent should mask it instead.

        Args:
            texts: Any strings.
            batch_size: Texts in one pass; those of similar length go together.
            device: Where to compute; the encoder is moved there. None leaves it where it is.
            progress: Show Lightning's progress bar.

        Raises:
            InvalidArgumentError: If ``batch_size`` is not positive, or ``texts`` is one string.
        """
        if isinstance(texts, str):
            raise InvalidArgumentError(f"texts must be a sequence of strings, got {texts[:40]!r}")
        ids = self.tokenize(texts)["input_ids"] if len(texts) else []
        return self.embed_ids(ids, batch_size=batch_size, device=device, progress=progress)

    def embed_ids(
        self,
        ids: Sequence[Sequence[int]],
        *,
        batch_size: int = 256,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Return unit-length embeddings, float32 (N, D), of token ids; arguments as ``embed``."""
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
        if device is not None:
            self.to(device)
        embeddings = np.empty((len(ids), self.dim), dtype=np.float32)
        # Sorted by length, batches hold little padding.
        order = np.argsort([len(row) for row in ids], kind="stable")
        was_training = self.training
        self.eval()
        try:
            with Tqdm(desc="texts", total=len(ids), disable=not progress) as bar:
                for start in range(0, len(ids), batch_size):
                    rows = order[start : start + batch_size]
                    embeddings[rows] = self._embed_batch([ids[row] for row in rows])
                    bar.update(len(rows))
        finally:
            self.train(was_training)
        return embeddings

    @torch.inference_mode()
    def _embed_batch(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        input_ids, mask = pad(ids, self.pad_id)
        output: Tensor = self(input_ids.to(self.device), mask.to(self.device))
        return output.float().cpu().numpy()


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return token ids filled up on the right, int64 (B, T), and which are real, int64 (B, T)."""
    width = max(1, *(len(row) for row in rows)) if rows else 1
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
