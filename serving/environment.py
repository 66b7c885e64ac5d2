"""From environment variables to settings: ``RECSYS_PORT`` sets ``port``."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "RECSYS_"
# Variables of this prefix that the rest of the project reads.
_FOREIGN = frozenset({"RECSYS_DATA"})
# Kubernetes describes every Service to every pod, in variables that begin with the name of the
# Service: of one that is called recsys, or recsys-redis, they look like settings of ours.
_LINK_NAME = re.compile(
    r"RECSYS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_LINK = re.compile(r"RECSYS_(\w+_)?PORT=(tcp|udp|sctp)://.*")


def read_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that environment variables have; the names are not checked.

    Variables that Kubernetes sets for a Service are left out and logged. ``XDG_STATE_HOME`` moves
    the default of ``state``.

    Args:
        environment: Environment variables, as in ``os.environ``.
    """
    ours = {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in _FOREIGN
    }
    links = sorted(name for name, value in ours.items() if _is_link(name, value))
    if links:
        logger.warning("ignored what Kubernetes sets for a Service: %s", ", ".join(links))
    settings = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in ours.items()
        if name not in links
    }
    folder = Path(environment.get("XDG_STATE_HOME", ""))
    if folder.is_absolute():  # the specification says to ignore any other
        settings.setdefault("state", str(folder / "recsys"))
    return settings


def _is_link(name: str, value: str) -> bool:
    return bool(_LINK_NAME.fullmatch(name) or _LINK.fullmatch(f"{name}={value}"))
