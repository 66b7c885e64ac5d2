"""A client for operators: which bundle a running service answers with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from protos.recsys.v1 import admin_pb2 as pb
from protos.recsys.v1 import admin_pb2_grpc as rpc
from serving.client.connection import open_channel, plan_connection
from serving.client.fields import build
from serving.status import read_error


@dataclass(frozen=True)
class Arm:
    """A bundle that answers a share of the users.

    Args:
        bundle_version: The bundle.
        share: Share of the users that it is to answer.
        users: Users that it has answered since the share was set.
    """

    bundle_version: str
    share: float
    users: int


@dataclass(frozen=True)
class Bundles:
    """What a service serves.

    Args:
        served_version: Bundle that is served.
        previous_version: Bundle that a roll-back serves; None before the first swap.
        loaded_version: Bundle beside the served one; None if there is no such bundle.
        closing: Number of bundles that still end the calls that they have.
        arms: The served and the loaded bundle, while the latter answers a share of the users.
        sample_ratio_p: Probability, by chance alone, of numbers of users that fit the shares as
            badly (``recsys.evaluation.sample_ratio``); None while there are too few.
    """

    served_version: str
    previous_version: str | None
    loaded_version: str | None
    closing: int
    arms: tuple[Arm, ...]
    sample_ratio_p: float | None


class AdminClient:
    """Exchanges the bundle of a running service, and waits for it.

    Every method raises what the service raised: BundleError, ValueError, or an error of
    ``serving.errors``; then nothing has changed. No call is repeated by itself.

    Args:
        address: Address of the service, as host:port.
        token: Token of the service, None if it has none.
        certificate: PEM file to trust, None for a service without TLS.
        identity: PEM file with the client's own certificate and its private key, for a service
            that wants one (mTLS).
        timeout_s: Longest wait for an answer, in seconds; a bundle takes some to open.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        certificate: Path | None = None,
        identity: Path | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        self._to = plan_connection(
            address,
            token=token,
            certificate=certificate,
            identity=identity,
            timeout_s=timeout_s,
        )
        self._channel = open_channel(self._to)
        self._stub = rpc.AdminStub(self._channel)

    def bundles(self) -> Bundles:
        """Return what is served."""
        return self._call(self._stub.GetBundles, pb.GetBundlesRequest())

    def load(self, version: str = "", *, share: float = 0.0) -> Bundles:
        """Open a bundle beside the served one, for a share of the users.

        Args:
            version: Version of the bundle; empty for the latest.
            share: Share of the users that it answers, 0 to 1. A user stays with it.
        """
        request = build(pb.LoadBundleRequest, bundle_version=version, share=share)
        return self._call(self._stub.LoadBundle, request)

    def unload(self) -> Bundles:
        """Close the bundle beside the served one."""
        return self._call(self._stub.UnloadBundle, pb.UnloadBundleRequest())

    def swap(self, version: str = "") -> Bundles:
        """Serve another bundle; on return, all new calls get it.

        Args:
            version: Version of the bundle; empty for the latest.
        """
        request = build(pb.SwapBundleRequest, bundle_version=version)
        return self._call(self._stub.SwapBundle, request)

    def roll_back(self) -> Bundles:
        """Serve the bundle again that was served before."""
        return self._call(self._stub.RollBack, pb.RollBackRequest())

    def close(self) -> None:
        """Close the connection."""
        self._to.is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Bundles:
        self._to.check_open()
        try:
            answer = method(request, timeout=self._to.timeout_s, metadata=self._to.metadata)
        except grpc.RpcError as error:
            raise read_error(error.code(), error.details(), error.trailing_metadata()) from error
        return _read(answer)


def _read(message: pb.Bundles) -> Bundles:
    return Bundles(
        message.served_version,
        message.previous_version or None,
        message.loaded_version or None,
        message.closing,
        tuple(Arm(one.bundle_version, one.share, one.users) for one in message.arms),
        message.sample_ratio_p if message.HasField("sample_ratio_p") else None,
    )
