"""A customer-service bot that says which product a photo shows.

Serve a bundle, and run this in another shell::

    recsys serve out/demo --port 50051
    python examples/photo_bot.py 127.0.0.1:50051 out/demo/shop/images/photos/photo-00001.jpg
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from serving.client import Client, Identification
from vision.printable import printable


def main(address: str, photo: str) -> None:
    """Print the bot's answer to a photo."""
    with Client(address) as client:
        answer = client.identify(Path(photo).read_bytes(), k=3)
        group = answer.product_group
        offers = answer.similar if answer.verdict == "unknown" else answer.candidates
        shown = group.item_ids if group else [offer.item_id for offer in offers]
        items = client.get_items(shown).items
        names = [item.title or item.item_id for item in items]
        print(printable(sentence(answer, names)))  # titles are a supplier's


def sentence(answer: Identification, names: Sequence[str]) -> str:
    """Return the answer as a sentence.

    Args:
        answer: Answer of the service.
        names: Titles of the products that the answer names; else of its candidates, or of similar
            items for sale if the product is unknown.
    """
    match answer.verdict:
        case "product":
            return f"This is {names[0]}."
        case "group":
            return f"This is one of {', '.join(names)}."
        case "unsure":
            return f"One of these? {', '.join(names)}"
        case "unknown":
            return f"We do not seem to sell this. Similar: {', '.join(names)}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
