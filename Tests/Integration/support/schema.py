"""etcd's services and messages, from the proto files beside this folder."""

import pathlib
import subprocess
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "proto"
COMPILED = pathlib.Path(__file__).resolve().parents[3] / ".build" / "proto" / "etcd.pb"


class Method:
    """One RPC: its path, its message classes and which sides stream."""

    def __init__(self, path, request, response, streams_requests, streams_responses):
        self.path = path
        self.request = request
        self.response = response
        self.streams_requests = streams_requests
        self.streams_responses = streams_responses


def _compile():
    sources = sorted(FOLDER.glob("*.proto"))
    if not COMPILED.exists() or COMPILED.stat().st_mtime < max(file.stat().st_mtime for file in sources):
        COMPILED.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}", f"--descriptor_set_out={COMPILED}",
             *map(str, sources)], check=True)
    return descriptor_pb2.FileDescriptorSet.FromString(COMPILED.read_bytes())


def _message_class(pool, name):
    descriptor = pool.FindMessageTypeByName(name.lstrip("."))
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)


def _load():
    files = {file.name: file for file in _compile().file}
    pool = descriptor_pool.DescriptorPool()
    known = set()

    def add(file):
        if file.name not in known:
            known.add(file.name)
            for needed in file.dependency:
                add(files[needed])
            pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(
                file.SerializeToString())

    for file in files.values():
        add(file)
    return {
        f"{service.name}/{method.name}": Method(
            f"/{file.package}.{service.name}/{method.name}", _message_class(pool, method.input_type),
            _message_class(pool, method.output_type), method.client_streaming, method.server_streaming)
        for file in files.values() for service in file.service for method in service.method}


METHODS = _load()


class Rev(int):
    """A revision counted from the start of the case: Rev(1) is that of its first write."""


def build(kind, fields, base=0):
    """A message from keyword values; a Rev becomes a revision of the store."""
    message = kind()
    fill(message, fields, base)
    return message


def fill(message, fields, base):
    for name, value in fields.items():
        if isinstance(value, dict):
            part = getattr(message, name)
            part.SetInParent()
            fill(part, value, base)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    fill(getattr(message, name).add(), item, base)
                else:
                    getattr(message, name).append(item)
        elif isinstance(value, Rev):
            setattr(message, name, base + int(value))
        else:
            setattr(message, name, value)
