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
from text.networks.packages import Origin
from text.networks.pooling import POOLINGS, pool
from text.networks.projection import Dense
from text.tokens.normalize import normalize


class TextEncoder(nn.Module):
    """A transformer, a pooling and an optional projection, with the tokenizer they belong to.

    Computes the same as a sentence-transformers model with a Normalize module (Reimers & Gurevych,
    2019, https://arxiv.org/abs/1908.10084), on texts that ``normalize`` has cleaned first.

    Args:
        backbone: A transformers model whose output has ``last_hidden_state`` (B, T, F).
        tokenizer: Tokenizer that the backbone was trained with.
        pooling: A name in ``text.networks.pooling.POOLINGS``.
        projection: Layers from the pooled tokens (B, F) to (B, D). Without layers D is F.
        max_tokens: Longest text in tokens, special tokens included; longer texts are cut.
        prompt: String put before every text, which some checkpoints were trained with.
        origin: Weights that training began with; None for random ones.

    Attributes:
        temperature: Divisor of the cosines with pictures, of a checkpoint that has an image half.
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
        origin: Origin | None = None,
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
        self.origin = origin
        self.temperature: float | None = None

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
        """Token id to pad with, or 0 where the tokenizer has none; the mask hides it either way."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def padded(self) -> bool:
        """Whether every text is padded to ``max_tokens`` and padding is read, as SigLIP learned."""
        return bool(self.backbone.config.model_type == "siglip_text_model")

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit-length embeddings (B, D).

        Args:
            input_ids: Token ids, int64 (B, T).
            attention_mask: 1 at a real token, 0 at padding on the right (B, T).
        """
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
        pooled = pool(hidden.last_hidden_state, attention_mask, self.pooling)
        return F.normalize(self.projection(pooled), dim=1)

    def tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        """Return the token ids of the normalised texts, as lists without padding."""
        prompted = [self.prompt + normalize(text) for text in texts]
        encoding: BatchEncoding = self.tokenizer(
            prompted,
            truncation=True,
            max_length=self.max_tokens,
            padding="max_length" if self.padded else False,
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
        """Return unit-length embeddings, float32 (N, D).

        They do not depend on the batch size, to 1e-5. An empty text gets the embedding of the
        special tokens alone, one fixed unit vector per encoder. Where a title is absent, mask it
        instead of embedding an empty text.

        Args:
            texts: Any strings (N).
            batch_size: Number of texts in one forward pass; texts of similar length go together.
            device: Device to move the encoder to; None leaves it where it is.
            progress: Whether to show a progress bar.

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
        """Return the unit-length embeddings, float32 (N, D), of token ids.

        Args:
            ids: Token ids of each text, special tokens included (N).
            batch_size: As for ``embed``.
            device: As for ``embed``.
            progress: As for ``embed``.

        Raises:
            InvalidArgumentError: If ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
        if device is not None:
            self.to(device)
        embeddings = np.empty((len(ids), self.dim), dtype=np.float32)
        # Texts sorted by length need little padding.
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
    """Return token ids padded on the right, int64 (B, T), and their mask, int64 (B, T).

    Args:
        rows: Token ids of each text (B).
        pad_id: Token id to pad with.
    """
    width = max(1, *(len(row) for row in rows)) if rows else 1
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask
