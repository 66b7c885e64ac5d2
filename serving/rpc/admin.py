"""The gRPC methods by which an operator exchanges bundles."""

from protos.recsys.v1 import admin_pb2 as pb
from protos.recsys.v1 import admin_pb2_grpc as rpc
from serving.engine.versions import Status, Versions
from serving.rpc.servicer import Context


class AdminServicer(rpc.AdminServicer):
    """Implements ``recsys.v1.Admin``.

    Args:
        versions: Bundles of the service.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    async def GetBundles(  # noqa: N802 - the name is the protocol's
        self, request: pb.GetBundlesRequest, context: Context
    ) -> pb.Bundles:
        """Return what is served."""
        return write_bundles(self._versions.status())

    async def LoadBundle(  # noqa: N802
        self, request: pb.LoadBundleRequest, context: Context
    ) -> pb.Bundles:
        """Open a bundle beside the served one."""
        await self._versions.load(request.bundle_version, share=request.share)
        return write_bundles(self._versions.status())

    async def UnloadBundle(  # noqa: N802
        self, request: pb.UnloadBundleRequest, context: Context
    ) -> pb.Bundles:
        """Close the bundle beside the served one."""
        await self._versions.unload()
        return write_bundles(self._versions.status())

    async def SwapBundle(  # noqa: N802
        self, request: pb.SwapBundleRequest, context: Context
    ) -> pb.Bundles:
        """Serve another bundle."""
        await self._versions.swap(request.bundle_version)
        return write_bundles(self._versions.status())

    async def RollBack(  # noqa: N802
        self, request: pb.RollBackRequest, context: Context
    ) -> pb.Bundles:
        """Serve the bundle before."""
        await self._versions.roll_back()
        return write_bundles(self._versions.status())


def write_bundles(status: Status) -> pb.Bundles:
    """Return what is served as a message."""
    message = pb.Bundles(
        served_version=status.served,
        previous_version=status.previous or "",
        loaded_version=status.loaded or "",
        closing=status.closing,
    )
    if status.split is not None:
        shares = (1 - status.split.share, status.split.share)
        for (version, users), share in zip(status.split.users.items(), shares, strict=True):
            message.arms.add(bundle_version=version, share=share, users=users)
        p = status.split.sample_ratio_p()
        if p is not None:
            message.sample_ratio_p = p
    return message
