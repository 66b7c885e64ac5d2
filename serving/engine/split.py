"""Which of two bundles answers a user, and how many users each has answered."""

import hashlib
import logging

from recsys.evaluation.sample_ratio import sample_ratio_p

logger = logging.getLogger(__name__)

MAX_USERS = 100_000  # remembered for a split; the test of its ratio is decided long before


def user_place(user_id: str, experiment: str) -> float:
    """Return a number from 0 to below 1 that a user always has in an experiment.

    The numbers of different users are spread evenly, and those of one user in two experiments have
    nothing to do with each other.

    Args:
        user_id: The caller's id.
        experiment: Name of the experiment; the service takes the version of the loaded bundle.
    """
    return user_hash(user_id, experiment) / 2**64


def user_hash(user_id: str, experiment: str) -> int:
    """Return the hash by which the log names a user of an experiment, 64 bits."""
    # The length keeps different pairs apart: ("ab", "c") and ("a", "bc").
    text = f"{len(experiment)}:{experiment}{user_id}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Split:
    """Divides users between the served bundle and a loaded one, and takes note of who got which.

    The log has one line for each user, with ``user_hash`` in hexadecimal for the user. A user who
    comes again after ``MAX_USERS`` others is logged again, and is not counted.

    Args:
        served: Version of the served bundle.
        loaded: Version of the loaded bundle.
        share: Share of the users that the loaded bundle answers, 0 to 1.
    """

    def __init__(self, served: str, loaded: str, share: float) -> None:
        self.share = share
        self.users = {served: 0, loaded: 0}
        self._served, self._loaded = served, loaded
        self._seen: dict[int, None] = {}  # in the order in which they came
        self._is_full = False

    def choose(self, user_id: str) -> str:
        """Return the version that answers a user."""
        is_loaded = user_place(user_id, self._loaded) < self.share
        version = self._loaded if is_loaded else self._served
        self._note(user_hash(user_id, self._loaded), version)
        return version

    def sample_ratio_p(self) -> float | None:
        """Return how probable the numbers of users are; None if nothing is split, or too few."""
        if not 0 < self.share < 1:
            return None
        counts = (self.users[self._served], self.users[self._loaded])
        return sample_ratio_p(counts, (1 - self.share, self.share))

    def _note(self, user: int, version: str) -> None:
        if user in self._seen:
            return
        if len(self._seen) >= MAX_USERS:
            self._is_full = True
            del self._seen[next(iter(self._seen))]
        self._seen[user] = None
        if not self._is_full:
            self.users[version] += 1
        logger.info("exposure: experiment %s, user %016x, bundle %s", self._loaded, user, version)
