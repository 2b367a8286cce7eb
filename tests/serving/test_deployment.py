"""The files in serving/ parsed the way the real server parses them: protobuf text, unknown fields refused."""

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from msim_tf.serving.server import ServerOptions

SERVING = Path(__file__).parents[2] / "serving"

# The two messages whose classes tensorflow-serving-api leaves out, from
# session_bundle_config.proto and monitoring_config.proto.
WRAPPED = ".google.protobuf.Int64Value"
MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", 1, WRAPPED),
        ("batch_timeout_micros", 2, WRAPPED),
        ("max_enqueued_batches", 3, WRAPPED),
        ("num_batch_threads", 4, WRAPPED),
        ("allowed_batch_sizes", 6, "repeated int64"),
        ("pad_variable_length_inputs", 7, "bool"),
    ],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
    "MonitoringConfig": [("prometheus_config", 1, ".t.PrometheusConfig")],
}


def message_class(name):
    from google.protobuf import message_factory

    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    for message_name, fields in MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if kind.startswith("repeated") else field.LABEL_OPTIONAL
            if kind.startswith("."):
                field.type, field.type_name = field.TYPE_MESSAGE, kind
            else:
                field.type = field.Type.Value(f"TYPE_{kind.split()[-1].upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))


def test_models_config():
    config = text_format.Parse((SERVING / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("msim", "/models/msim", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_config():
    batching = text_format.Parse((SERVING / "batching.config").read_text(), message_class("BatchingParameters")())
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[-1] == batching.max_batch_size.value
    assert batching.num_batch_threads.value >= 1 and batching.max_enqueued_batches.value >= 1
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch_size: 8", message_class("BatchingParameters")())


def test_monitoring_config():
    monitoring = text_format.Parse((SERVING / "monitoring.config").read_text(), message_class("MonitoringConfig")())
    assert monitoring.prometheus_config.enable
    assert f"8501{monitoring.prometheus_config.path}" in (SERVING / "README.md").read_text()


def test_compose_file_names_what_is_there():
    compose = (SERVING / "compose.yaml").read_text()
    for file in re.findall(r"/config/([\w.]+)", compose):
        assert (SERVING / file).is_file(), file
    assert re.search(r"image: tensorflow/serving:\$\{TF_SERVING_TAG:-\d+\.\d+\.\d+\}", compose)
    ports = re.findall(r'- "(.+):(\d+):(\d+)"', compose)
    assert ports == [("127.0.0.1", str(port), str(port)) for port in (ServerOptions.grpc_port, ServerOptions.rest_port)]
    pinned = re.search(r"TF_SERVING_TAG:-([\d.]+)", compose)[1]
    assert f"tensorflow/serving:{pinned} " in (SERVING / "README.md").read_text()
