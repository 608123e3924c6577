"""The modules of rakefarm/engine/api are what their .proto files say. Compared are descriptors: what the compiler of
protocol buffers writes around them is another of each release (scripts/generate_engine_api.py says which we use)."""

import importlib
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

protoc = pytest.importorskip("grpc_tools.protoc", reason="needs grpcio-tools, of the extra dev")
ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "rakefarm" / "engine" / "api"
NAMES = sorted(path.stem for path in API.glob("*.proto"))


def without_json_names(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Only the compiler's own output has these; they follow from the names."""

    def strip(messages: list[descriptor_pb2.DescriptorProto]) -> None:
        for message in messages:
            for field in message.field:
                field.ClearField("json_name")
            strip(list(message.nested_type))

    strip(list(file.message_type))
    return file


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """What the .proto files say now, by name."""
    place = tmp_path_factory.mktemp("api") / "set"
    include = Path(str(protoc.__file__)).parent / "_proto"
    words = ["protoc", f"-I{ROOT}", f"-I{include}", f"--descriptor_set_out={place}"]
    assert protoc.main([*words, *[f"rakefarm/engine/api/{name}.proto" for name in NAMES]]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(place.read_bytes()).file
    return {Path(file.name).stem: without_json_names(file) for file in files}


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_what_its_file_says(name: str, compiled: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    module = importlib.import_module(f"rakefarm.engine.api.{name}_pb2")
    ours = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    assert without_json_names(ours) == compiled[name], "run scripts/generate_engine_api.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_types_of_a_module_are_those_of_its_messages(
    name: str, compiled: dict[str, descriptor_pb2.FileDescriptorProto]
) -> None:
    stub = (API / f"{name}_pb2.pyi").read_text()
    declared = set(re.findall(r"^class (\w+)\(_message\.Message\)", stub, re.MULTILINE))
    assert declared == {message.name for message in compiled[name].message_type}
    for message in compiled[name].message_type:
        for field in message.field:
            assert re.search(rf"^    {field.name}: ", stub, re.MULTILINE), f"{message.name}.{field.name}"
