"""The towers and the fusion as one object: titles and pictures in, item embeddings out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.data.arrays import Floats
from recsys.errors import InvalidArgumentError, InvalidImageError, MissingPartError
from recsys.models.fusion import ItemFusion
from text.encoder import TextEncoder
from vision.deploy.bulk import embed_files
from vision.device import resolve_device
from vision.errors import InvalidArgumentError as DeviceError
from vision.images import ImageError
from vision.precision import Precision, autocast
from vision.tower import VisionTower

Content = TypeVar("Content", bound=str | bytes | Path)
MAX_QUERY_CHARACTERS = 1_000


@dataclass(frozen=True)
class Modalities:
    """Tower outputs of B items, before fusion.

    Args:
        embeddings: Embeddings by modality, (B, D_m); rows of absent modalities are zero.
        present: Masks by modality of the items that have it, bool (B,).
    """

    embeddings: Mapping[str, Floats]
    present: Mapping[str, NDArray[np.bool_]]

    def only(self, modality: str) -> "Modalities":
        """Return the same items with every other modality absent."""
        return replace(
            self,
            present={
                name: present if name == modality else np.zeros_like(present)
                for name, present in self.present.items()
            },
        )


def item_text(title: str | None, description: str | None) -> str | None:
    """Return title and description of an item as one text; None for an item with neither."""
    return ". ".join(part for part in (title, description) if part is not None) or None


def item_texts(items: pl.DataFrame) -> list[str | None]:
    """Return ``item_text`` of each item."""
    return [item_text(*row) for row in items.select("title", "description").iter_rows()]


class ItemEmbedder:
    """Embeds items and queries into one space, with both towers and the fusion.

    Args:
        vision: Tower for images; None without one.
        text: Encoder for texts; None without one.
        fusion: Network from modality embeddings to item embeddings.
        device: Device of the networks.

    Raises:
        InvalidArgumentError: If this machine has no such device.
    """

    def __init__(
        self,
        vision: VisionTower | None,
        text: TextEncoder | None,
        fusion: ItemFusion,
        *,
        device: str = "cpu",
    ) -> None:
        device = check_device(device)
        self.vision = vision.to(device).eval() if vision is not None else None
        self.text = text.to(device).eval() if text is not None else None
        self.fusion = fusion.to(device).eval()
        self.device = device

    @property
    def image_tower(self) -> VisionTower:
        """The tower for images; raises ``MissingPartError`` if there is none."""
        if self.vision is None:
            raise MissingPartError("this bundle has no vision tower: it cannot embed photos")
        return self.vision

    def items(self, items: pl.DataFrame, pictures: Sequence[bytes | None]) -> Floats:
        """Return item embeddings (B, D); an item with neither title nor picture gets zeros.

        Args:
            items: Table of ``ItemSchema`` (B rows); its ``image`` column is ignored.
            pictures: File contents of the items' pictures (B), None where absent.

        Raises:
            InvalidImageError: If a picture is not a readable image; the message has its index.
            InvalidArgumentError: If the numbers of items and pictures differ.
        """
        return self.fuse(self.item_modalities(items, pictures))

    def item_modalities(self, items: pl.DataFrame, pictures: Sequence[bytes | None]) -> Modalities:
        """Return the tower outputs of items; arguments and errors as for :meth:`items`."""
        if len(items) != len(pictures):
            raise InvalidArgumentError(
                f"pictures must have one entry per item ({len(items)}), got {len(pictures)}"
            )
        return self.modalities(item_texts(items), pictures)

    def query(self, text: str | None, image: bytes | None) -> Floats:
        """Return the embedding (D,) of words, an image, or both; errors as for :meth:`queries`."""
        embedding: Floats = self.queries([text], [image])[0]
        return embedding

    def queries(self, texts: Sequence[str | None], images: Sequence[bytes | None]) -> Floats:
        """Return the embeddings (B, D) of B queries, each of words, an image, or both.

        The embedding of a query does not depend on its batch, to 1e-5.

        Args:
            texts: Words of each query (B), None where absent.
            images: File contents of the image of each query (B), None where absent.

        Raises:
            InvalidArgumentError: If a query is empty or its text is too long.
            InvalidImageError: If the bytes are not a readable image; the message has its index.
            MissingPartError: If the tower for a text or an image is missing.
        """
        for text, image in zip(texts, images, strict=True):
            self.check_query(text, image)
        return self.fuse(self.modalities(texts, images))

    def check_query(self, text: str | None, image: bytes | None) -> None:
        """Raise the errors of :meth:`queries`, except those that only decoding the image finds."""
        has_text = bool(text and text.strip())
        if not has_text and not image:
            raise InvalidArgumentError("query must have text or image bytes, got neither")
        if text and len(text) > MAX_QUERY_CHARACTERS:
            raise InvalidArgumentError(
                f"query text must have at most {MAX_QUERY_CHARACTERS} characters, got {len(text)}"
            )
        if has_text and self.text is None:
            raise MissingPartError("this bundle has no text encoder: query it with an image")
        if image and self.vision is None:
            raise MissingPartError("this bundle has no vision tower: query it with words")

    def modalities(
        self,
        texts: Sequence[str | None] | None,
        pictures: Sequence[bytes | Path | None] | None,
        *,
        precision: Precision = "32-true",
        progress: bool = False,
    ) -> Modalities:
        """Return the tower outputs of B items, queries or photos.

        A modality is absent where its entry is None or its tower is missing. Equal texts, and
        equal paths of pictures, are embedded once.

        Args:
            texts: Texts (B), None where absent; None if all are absent.
            pictures: Images as file contents or paths (B), None where absent; None if all are
                absent.
            precision: Number format of the towers. With ``auto``, embeddings may differ by about
                1e-2, and a CUDA card decodes the picture files itself (``vision.deploy.bulk``).
            progress: Whether to show a progress bar for pictures.

        Raises:
            InvalidImageError: If a picture is not a readable image; of several, the message has its
                index.
        """
        embeddings, present = {}, {}
        if self.text is not None:
            texts = [text.strip() or None if text else None for text in texts] if texts else None
            distinct = _distinct(texts)
            with autocast(precision, torch.device(self.device)):
                vectors = self.text.embed(distinct, device=self.device)
            embeddings["text"], present["text"] = _spread(vectors, distinct, texts, pictures)
        if self.vision is not None:
            seen: list[bytes | Path] = _distinct(pictures)
            try:
                vectors = self._embed_images(self.vision, seen, precision, progress)
            except ImageError as error:
                if error.position is None or pictures is None:
                    raise InvalidImageError(str(error)) from error
                position = pictures.index(seen[error.position])
                which = f"image {position}: " if len(pictures) > 1 else ""
                raise InvalidImageError(f"{which}{error.__cause__}") from error
            embeddings["image"], present["image"] = _spread(vectors, seen, pictures, texts)
        return Modalities(embeddings, present)

    def _embed_images(
        self,
        vision: VisionTower,
        pictures: Sequence[bytes | Path],
        precision: Precision,
        progress: bool,
    ) -> Floats:
        """Return the tower's embeddings of images (B, D_m)."""
        files = [picture for picture in pictures if isinstance(picture, Path)]
        on_card = torch.device(self.device).type == "cuda"
        if on_card and precision != "32-true" and len(files) == len(pictures):
            return embed_files(vision, files, device=self.device, precision=precision)
        return vision.embed(pictures, device=self.device, precision=precision, progress=progress)

    @torch.inference_mode()
    def fuse(self, modalities: Modalities) -> Floats:
        """Return item embeddings (B, D); rows without any modality are zero."""
        names = self.fusion.modalities
        present = np.stack([modalities.present[name] for name in names], axis=1)  # (B, M)
        fused = self.fusion(
            {name: torch.from_numpy(modalities.embeddings[name]).to(self.device) for name in names},
            torch.from_numpy(present).to(self.device),
        )
        return np.asarray(fused.float().cpu().numpy(), dtype=np.float32)


def check_device(device: str) -> str:
    """Return the name of a device that this machine has; ``auto`` is a card where there is one.

    Raises:
        InvalidArgumentError: If this machine has no such device.
    """
    try:
        return str(resolve_device(device))
    except DeviceError as error:
        raise InvalidArgumentError(str(error)) from error


def _distinct(contents: Sequence[Content | None] | None) -> list[Content]:
    """Return the distinct contents that are present, in the order in which they first occur."""
    return list(dict.fromkeys(content for content in contents or () if content))


def _spread(
    vectors: Floats,
    distinct: Sequence[Content],
    contents: Sequence[Content | None] | None,
    other: Sequence[object] | None,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the vector of each row's content (B, D_m), and which rows have one, bool (B,).

    Args:
        vectors: Vector of each distinct content.
        distinct: Contents that ``_distinct`` returned.
        contents: Contents of the rows (B), None where absent.
        other: Contents of the other modality (B), which give B where ``contents`` is None.
    """
    n_rows = len(contents if contents is not None else other or ())
    present = np.array([bool(one) for one in contents or [None] * n_rows], dtype=np.bool_)
    position = {content: n for n, content in enumerate(distinct)}
    embeddings = np.zeros((n_rows, vectors.shape[1]), dtype=np.float32)
    embeddings[present] = vectors[[position[content] for content in contents or () if content]]
    return embeddings, present
