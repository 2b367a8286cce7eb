"""The files in serving/ parsed the way the real server parses them: protobuf text, unknown fields refused."""

import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from msim_tf.serving.server import ServerOptions

SERVING = Path(__file__).parents[2] / "serving"
SAVED_MODELS = SERVING.parent / "saved_models"
# Of tensorflow_model_server --help, 2.18.1.
FLAGS = {
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "monitoring_config_file",
    "grpc_max_threads",
    "allow_version_labels_for_unavailable_models",
    "enable_batching",
    "batching_parameters_file",
}

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


def test_models_config_names_every_model_that_ships():
    config = text_format.Parse((SERVING / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    models = {model.name: model for model in config.model_config_list.config}
    assert set(models) == {path.parent.parent.name for path in SAVED_MODELS.glob("*/*/saved_model.pb")} != set()
    for name, model in models.items():
        assert (model.base_path, model.model_platform) == (f"/models/{name}", "tensorflow")
        assert model.model_version_policy.latest.num_versions == 1


def test_batching_config():
    batching = text_format.Parse((SERVING / "batching.config").read_text(), message_class("BatchingParameters")())
    # With them a request of no rows ends the stock server.
    assert not batching.allowed_batch_sizes
    assert batching.max_batch_size.value > 1
    assert batching.num_batch_threads.value >= 1 and batching.max_enqueued_batches.value >= 1
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch_size: 8", message_class("BatchingParameters")())


def test_monitoring_config():
    monitoring = text_format.Parse((SERVING / "monitoring.config").read_text(), message_class("MonitoringConfig")())
    assert monitoring.prometheus_config.enable
    assert f"8501{monitoring.prometheus_config.path}" in (SERVING / "README.md").read_text()


@pytest.fixture(scope="module")
def service():
    """The one service of the compose file."""
    compose = yaml.safe_load((SERVING / "compose.yaml").read_text())
    assert set(compose) == {"services"}
    (service,) = compose["services"].values()
    return service


def test_the_compose_file_has_the_keys_of_the_compose_specification(service):
    types = {"image": str, "command": list, "ports": list, "volumes": list, "restart": str}
    assert {key: type(value) for key, value in service.items()} == types
    assert re.fullmatch(r"tensorflow/serving:\$\{TF_SERVING_TAG:-\d+\.\d+\.\d+\}", service["image"])
    assert service["restart"] in ("no", "always", "on-failure", "unless-stopped")


def test_the_compose_file_passes_flags_that_the_server_knows(service):
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in service["command"])
    assert set(flags) <= FLAGS and flags["grpc_max_threads"] == "256"
    mounts = dict(reversed(volume.removesuffix(":ro").split(":")) for volume in service["volumes"])
    assert mounts == {"/models": "../saved_models", "/config": "."}
    for value in flags.values():
        if value.startswith("/config/"):
            assert (SERVING / value.removeprefix("/config/")).is_file(), value


def test_the_ports_are_those_of_the_embedded_server_on_loopback(service):
    ports = [f"127.0.0.1:{port}:{port}" for port in (ServerOptions.grpc_port, ServerOptions.rest_port)]
    assert service["ports"] == ports


def test_the_readme_names_what_is_there(service):
    readme = (SERVING / "README.md").read_text()
    pinned = re.search(r"TF_SERVING_TAG:-([\d.]+)", service["image"])[1]
    assert f"tensorflow/serving:{pinned} " in readme
    for file in SERVING.iterdir():
        assert f"`{file.name}`" in readme or file.name == "README.md", file
    models = {path.name for path in SAVED_MODELS.iterdir() if path.is_dir()}
    assert set(re.findall(r"/v1/models/(\w+)", readme)) <= models
    assert set(re.findall(r"MSIM_SERVING_MODEL=(\w+)", readme)) <= models
    for path in re.findall(r"\b(?:tests|tools|msim_tf)/[\w/]+\.py", readme):
        assert (SERVING.parent / path).is_file(), path


@pytest.mark.parametrize("file", ["nginx.conf", "Caddyfile"])
def test_proxies_pass_on_what_the_server_expects(file):
    text = (SERVING / file).read_text()
    assert f"127.0.0.1:{ServerOptions.rest_port}" in text
    assert "--root-path /msim" in text and "/msim/" in text
    assert text.count("{") == text.count("}")
