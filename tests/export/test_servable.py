"""The Session loader: numbers, semantics of the real server, warmup and damaged exports."""

import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from msim_tf.errors import InputError
from msim_tf.export.protocol import write_tensor
from msim_tf.export.servable import Servable
from msim_tf.export.status import ServingError
from msim_tf.export.warmup import MAX_WARMUP_RECORDS, WARMUP_FILE
from msim_tf.files import save_json


@pytest.fixture(scope="module")
def servable(toy_version):
    with Servable.load(toy_version) as servable:
        yield servable


@pytest.fixture
def copy(toy_version, tmp_path):
    """A version directory that a test may damage."""
    return shutil.copytree(toy_version, tmp_path / "7")


def failure(servable, *args, **options):
    with pytest.raises(ServingError) as caught:
        servable.run(*args, **options)
    return caught.value.code, caught.value.message


def test_numbers_equal_numpy(servable, rng, toy_weights):
    x = rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(servable.run("", {"x": x})["y"], x @ toy_weights, rtol=1e-5, atol=1e-6)


def test_every_type_goes_in_and_out(servable):
    feeds = {
        "a": np.ones((2, 2), np.float32),
        "n": np.array([2, 3], np.int32),
        "s": np.array([b"a\0", "ä"], object),
        "b": np.array([True, False]),
    }
    outputs = servable.run("mixed", feeds)
    np.testing.assert_array_equal(outputs["product"], [[2, 2], [3, 3]])
    assert outputs["n"].tolist() == [3, 4]
    assert outputs["s"].tolist() == [b"a\0", "ä".encode()] and outputs["s"].dtype == object
    assert outputs["not_b"].tolist() == [False, True]
    assert servable.run("halves", {"x": np.ones(1, np.float16)})["y"].dtype == np.float16
    assert servable.run("same", {"x": np.float32(3)})["y"].shape == ()


def test_signatures_and_their_shapes(servable):
    assert {"serving_default", "mixed", "__saved_model_init_op"} <= set(servable.signatures)
    x = servable.signatures["serving_default"].inputs["x"]
    assert (x.dtype, x.shape, x.tensor_name) == ("float32", (None, 3), "serving_default_x:0")
    assert servable.signatures["wav"].inputs["contents"].shape is None
    assert servable.metadata is None


def test_metadata_file_is_read(copy):
    save_json(copy / "assets.extra" / "msim.json", {"preset": "tiny"})
    with Servable.load(copy) as servable:
        assert servable.metadata == {"preset": "tiny"}
    (copy / "assets.extra" / "msim.json").write_text("{")
    with pytest.raises(InputError, match="msim.json: not valid JSON"):
        Servable.load(copy)


def test_output_filter_selects(servable):
    feeds = {"x": np.arange(3, dtype=np.float32)}
    assert list(servable.run("total", feeds, ["sum"])) == ["sum"]
    assert failure(servable, "total", feeds, ["nah"]) == (
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: nah Outputs expected to be in the set {all,sum}.",
    )
    assert failure(servable, "total", feeds, ["sum", "sum"]) == (
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: sum",
    )


def test_shapes_are_left_to_the_operations(servable):
    # A signature of [None] runs with a matrix when its operations can; MatMul cannot take a vector.
    assert servable.run("doubles", {"x": np.ones((2, 2))})["y"].shape == (2, 2)
    code, message = failure(servable, "", {"x": np.ones(3, np.float32)})
    # Which of its two kernels says it depends on the processor.
    said = ("In[0] ndims must be >= 2", "In[0] and In[1] has different ndims: [3] vs. [3,2]")
    assert code == "INVALID_ARGUMENT" and message.startswith(said)


@pytest.mark.parametrize(
    ("signature", "feeds", "code", "message"),
    [
        ("nope", {}, "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        (
            "",
            {"z": np.ones((1, 3), np.float32)},
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
            "provided. "
            "Inputs expected to be in the request {z}, or default input alias set: ",
        ),
        (
            "two",
            {"a": np.ones(1, np.float32)},
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: "
            "{b}.",
        ),
        (
            "",
            {"x": np.ones((1, 3), np.float32), "q": np.ones(1)},
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({q,x}) != len({x}). Sent extra: {q}. Missing but "
            "required: {}.",
        ),
        ("", {"x": np.ones((1, 3))}, "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"),
        ("longs", {"x": np.ones(1, np.int32)}, "INVALID_ARGUMENT", "Expects arg[0] to be int64 but int32 is provided"),
    ],
)
def test_wrong_names_and_types_read_as_in_the_real_server(servable, signature, feeds, code, message):
    assert failure(servable, signature, feeds) == (code, message)


def test_a_failing_operation_keeps_its_code_and_place(servable):
    code, message = failure(servable, "wav", {"contents": np.array([b"abc"], object)})
    assert code == "INVALID_ARGUMENT"
    assert message.startswith("contents must be scalar, got shape [1]\n\t [[{{function_node __inference_")
    assert message.endswith("{{node DecodeWav}}]]")


def test_a_timeout_ends_the_run_and_the_model_goes_on(servable):
    assert failure(servable, "endless", {"x": np.float32(0)}, timeout=0.2)[0] == "DEADLINE_EXCEEDED"
    assert servable.run("same", {"x": np.float32(1)}, timeout=60)["y"] == 1


def test_threads_do_not_mix_their_results(servable, toy_weights):
    results = {}

    def ask(number):
        x = np.full((4, 3), number, np.float32)
        results[number] = [servable.run("", {"x": x})["y"] for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        expected = np.full((4, 3), number, np.float32) @ toy_weights
        np.testing.assert_allclose(results[number], [expected] * 20, rtol=1e-6)


def test_a_closed_model_says_so(copy):
    servable = Servable.load(copy)
    servable.close()
    assert failure(servable, "same", {"x": np.float32(1)})[0] in ("UNAVAILABLE", "CANCELLED")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: shutil.rmtree(path), "not found; expected the directory of a model version"),
        (lambda path: (path / "saved_model.pb").unlink(), "not a SavedModel"),
        (lambda path: (path / "saved_model.pb").write_bytes(b"\xff\xff nonsense"), "cannot be loaded"),
        (lambda path: (path / "saved_model.pb").write_bytes(b""), "cannot be loaded"),
        (lambda path: shutil.rmtree(path / "variables"), "cannot be loaded"),
        (lambda path: next((path / "variables").glob("*.data*")).write_bytes(b"x"), "cannot be loaded"),
    ],
)
def test_a_damaged_export_is_refused_in_one_line(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message) as caught:
        Servable.load(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


def predict_log(signature="", **inputs):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    for name, value in inputs.items():
        write_tensor(log.predict_log.request.inputs[name], np.asarray(value))
    return log.SerializeToString()


GOOD = {"x": np.ones((1, 3), np.float32)}


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([predict_log(**GOOD), predict_log("same", x=np.float32(1))], None),
        ([predict_log(**GOOD), predict_log(x=np.ones((1, 2), np.float32))], "INVALID_ARGUMENT"),
        ([predict_log("nope", **GOOD)], "FAILED_PRECONDITION"),
        ([b"\xff\xff\xff"], "INVALID_ARGUMENT"),
        ([prediction_log_pb2.PredictionLog(session_run_log={}).SerializeToString()], "UNIMPLEMENTED"),
        ([predict_log("same", x=np.float32(1))] * (MAX_WARMUP_RECORDS + 1), "INVALID_ARGUMENT"),
    ],
)
def test_warmup_requests_must_all_pass(copy, records, code):
    (copy / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(copy / WARMUP_FILE)) as writer:
        for record in records:
            writer.write(record)
    if code is None:
        Servable.load(copy).close()
        return
    with pytest.raises(ServingError) as caught:
        Servable.load(copy)
    assert caught.value.code == code
    Servable.load(copy, warmup=False).close()


def test_a_warmup_file_that_is_no_tfrecord_fails_the_load(copy):
    (copy / WARMUP_FILE).parent.mkdir()
    (copy / WARMUP_FILE).write_bytes(b"no record at all, but long enough to be one")
    with pytest.raises(ServingError, match="DATA_LOSS.*not a whole TFRecord"):
        Servable.load(copy)
