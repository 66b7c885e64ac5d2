"""The generated code matches the protocol, and the service implements all of it."""

from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from protos.recsys.v1 import recommender_pb2, recommender_pb2_grpc
from serving.rpc.servicer import RecommenderServicer

ROOT = Path(__file__).parents[2]
PROTO = "protos/recsys/v1/recommender.proto"
SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor that the installed compiler generates, the same in all versions."""
    out = tmp_path_factory.mktemp("protoc") / "set"
    include = Path(grpc_tools.__file__).with_name("_proto")
    arguments = ["protoc", f"-I{ROOT}", f"-I{include}", f"--descriptor_set_out={out}"]
    assert protoc.main([*arguments, str(ROOT / PROTO)]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def test_the_committed_code_was_generated_from_the_protocol(
    compiled: descriptor_pb2.FileDescriptorProto,
) -> None:
    committed = descriptor_pb2.FileDescriptorProto()
    recommender_pb2.DESCRIPTOR.CopyToProto(committed)

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
    for method in SERVICE.methods:
        base = getattr(recommender_pb2_grpc.RecommenderServicer, method.name)
        assert getattr(RecommenderServicer, method.name) is not base


def test_every_response_has_the_bundle_version_and_what_is_degraded() -> None:
    for method in SERVICE.methods:
        info = method.output_type.fields_by_name["info"]
        assert (info.number, info.message_type.name) == (1, "ResponseInfo")


def test_every_method_has_a_comment() -> None:
    lines = (ROOT / PROTO).read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("rpc "):
            assert lines[number - 1].strip().startswith("//"), line
