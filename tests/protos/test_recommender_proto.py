"""The generated code matches the protocol, and the service implements all of it."""

from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from grpc_tools import protoc

from protos.recsys.v1 import admin_pb2, admin_pb2_grpc, recommender_pb2, recommender_pb2_grpc
from serving.rpc.admin import AdminServicer
from serving.rpc.routing import Router
from serving.rpc.servicer import RecommenderServicer

ROOT = Path(__file__).parents[2]
FILES = (recommender_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR)
SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"]
SERVICERS = {
    SERVICE: (recommender_pb2_grpc.RecommenderServicer, (RecommenderServicer, Router)),
    admin_pb2.DESCRIPTOR.services_by_name["Admin"]: (
        admin_pb2_grpc.AdminServicer,
        (AdminServicer,),
    ),
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_committed_code_was_generated_from_the_protocol(
    file: FileDescriptor, tmp_path: Path
) -> None:
    """The descriptor that the installed compiler generates is the same in all versions."""
    out = tmp_path / "set"
    include = Path(grpc_tools.__file__).with_name("_proto")
    arguments = ["protoc", f"-I{ROOT}", f"-I{include}", f"--descriptor_set_out={out}"]
    assert protoc.main([*arguments, str(ROOT / file.name)]) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    committed = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(committed)

    assert without_json_names(committed) == without_json_names(compiled), "run `make proto`"


def without_json_names(
    file: descriptor_pb2.FileDescriptorProto,
) -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor without the JSON names, which only some compilers write."""
    messages = list(file.message_type)
    for message in messages:
        messages.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    return file


def test_every_method_is_implemented() -> None:
    for service, (base, ours) in SERVICERS.items():
        for method in service.methods:
            inherited = getattr(base, method.name)
            assert any(getattr(one, method.name) is not inherited for one in ours), method.name


def test_every_response_has_the_bundle_version_and_what_is_degraded() -> None:
    for method in SERVICE.methods:
        info = method.output_type.fields_by_name["info"]
        assert (info.number, info.message_type.name) == (1, "ResponseInfo")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_method_has_a_comment(file: FileDescriptor) -> None:
    lines = (ROOT / file.name).read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("rpc "):
            assert lines[number - 1].strip().startswith("//"), line
