"""What an encoder starts from where the configuration leaves it open, and why."""

from collections.abc import Mapping
from typing import NamedTuple

from text.networks.hub import find_installed
from text.networks.published import MINILM

PUBLISHED = MINILM.network
NEW = "a new encoder"


class Start(NamedTuple):
    """What an encoder starts from, and why.

    Args:
        checkpoint: Checkpoint to start from; None builds a new encoder.
        figures: Share of held-out texts that are recognised, by encoder and by kind of query.
    """

    checkpoint: str | None
    figures: Mapping[str, Mapping[str, float]]

    def sentence(self) -> str:
        """Return the choice in words, with the figures of both."""
        chosen, other = (NEW, PUBLISHED) if self.checkpoint is None else (PUBLISHED, NEW)
        compared = ", ".join(
            f"{kind} {value:.3f} ({self.figures[other][kind]:.3f})"
            for kind, value in self.figures[chosen].items()
        )
        return (
            f"texts are read by {chosen}, not by {other}, by what both make of titles that they "
            f"have not learned: {compared or 'there were too few to compare'}"
        )


def can_choose() -> bool:
    """Return whether published weights are on this machine to be compared.

    Raises:
        WeightsError: If another version of their package is installed, or a file was changed.
    """
    return find_installed(PUBLISHED) is not None
