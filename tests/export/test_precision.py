"""bfloat16 by an option: rounded as NumPy rounds, only where the processor can, and only while it is asked for."""

import click
import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf import precision, settings
from msim_tf.cli.options import precision_option
from msim_tf.errors import InputError, PrecisionWarning
from msim_tf.export.servable import Servable
from msim_tf.serving.server import running_server

BFLOAT16 = ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\nbugs\t\t: swapgs\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni\nbugs\t\t: amx_bf16\n", False),
        ("", False),
    ],
)
def test_the_processor_says_whether_it_has_bfloat16(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert precision.has_bfloat16(tmp_path / "cpuinfo") is expected
    assert not precision.has_bfloat16(tmp_path / "missing")


def test_products_are_those_of_rounded_numbers(toy_version, toy_weights, rng, monkeypatch):
    if "avx512f" not in precision._CPUINFO.read_text():
        pytest.skip("TensorFlow rewrites nothing for a processor without AVX-512")
    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)  # emulated where there are no instructions
    x = rng.normal(size=(5, 3)).astype(np.float32)
    with Servable.load(toy_version, precision="bfloat16") as servable:
        y = servable.run("", {"x": x})["y"]
    rounded = x.astype(BFLOAT16).astype(np.float32) @ toy_weights.astype(BFLOAT16).astype(np.float32)
    np.testing.assert_allclose(y, rounded, rtol=2**-8)  # one more rounding, of the product
    assert np.abs(y - x @ toy_weights).max() > 1e-4


def test_a_processor_without_instructions_computes_in_float32_and_says_so(toy_version, rng, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    with pytest.warns(PrecisionWarning, match="no instructions for bfloat16"):
        fallback = Servable.load(toy_version, precision="bfloat16")
    with fallback, Servable.load(toy_version) as plain:
        np.testing.assert_array_equal(fallback.run("", {"x": x})["y"], plain.run("", {"x": x})["y"])


def test_another_precision_is_refused(toy_version, monkeypatch):
    with pytest.raises(InputError, match="precision: 'float16': expected float32 or bfloat16"):
        Servable.load(toy_version, precision="float16")
    monkeypatch.setenv(settings.PRECISION_VARIABLE, "float16")
    with pytest.raises(InputError, match="MSIM_PRECISION: 'float16'"), running_server({"toy": toy_version.parent}):
        pass


def test_the_option_holds_for_one_command(monkeypatch):
    monkeypatch.delenv(settings.PRECISION_VARIABLE, raising=False)
    monkeypatch.setattr(settings, "_file_settings", lambda file: {})

    @click.command()
    @precision_option
    def command():
        click.echo(settings.default_precision())

    assert CliRunner().invoke(command, ["--precision", "bfloat16"]).output == "bfloat16\n"
    assert CliRunner().invoke(command, []).output == "float32\n"
    assert CliRunner().invoke(command, ["--precision", "float16"]).exit_code == 2
