"""A storefront that shows recommendations, records a purchase, and shows new recommendations.

Serve a bundle, and run this in another shell::

    recsys serve out/demo --port 50051
    python examples/storefront.py 127.0.0.1:50051 user-00017
"""

import sys

from serving.client import Client, Event


def main(address: str, user_id: str) -> None:
    """Print the recommendations for a user before and after a purchase."""
    with Client(address) as client:
        before = client.recommend(user_id, k=5, explain=True)
        print(f"bundle {before.bundle_version}, degraded: {before.degraded or 'no'}")
        for result in before.results:
            reasons = ", ".join(name for name, _ in result.features)
            print(f"  {result.item_id}  {result.score:.2f}  {result.source}: {reasons}")
        client.record_events([Event(user_id, before.results[0].item_id, "purchase")])
        after = client.recommend(user_id, k=5, exclude_seen=True)
        print("after buying the first:", [result.item_id for result in after.results])


if __name__ == "__main__":
    main(*sys.argv[1:])
