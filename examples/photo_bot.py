"""A customer-service bot's call: which product is on this photo, if any?

Serve a bundle, then run this beside it::

    recsys serve out/demo --port 50051
    python examples/photo_bot.py 127.0.0.1:50051 out/demo/shop/images/photos/photo-00001.jpg
"""

import sys
from pathlib import Path

from serving.client import Client


def main(address: str, photo: str, sure: float = 0.8) -> None:
    """Print the sentence that a bot could answer; one product where it is ``sure`` of it."""
    with Client(address) as client:
        answer = client.identify(Path(photo).read_bytes(), k=3)
        if not answer.known:
            print(f"We do not seem to sell this (P(known) = {answer.probability:.2f}).")
            return
        items = client.get_items([one.item_id for one in answer.candidates]).items
        names = [item.title or item.item_id for item in items]
        best = answer.candidates[0].score
        print(f"This is {names[0]}." if best >= sure else f"One of these? {', '.join(names)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
