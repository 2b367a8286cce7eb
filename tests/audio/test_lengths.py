"""Headers that state another length than the file has: all of it is decoded, and the user is told."""

import struct

import av
import numpy as np
import pytest
import soundfile

from msim_tf.audio import decode
from msim_tf.audio.audio_lengths import flac_beyond_header, wav_beyond_header

SR = 44100
SECONDS = 4


@pytest.fixture(scope="module")
def y():
    t = np.arange(SECONDS * SR) / SR
    noise = np.random.default_rng(0).normal(0, 0.01, len(t))
    return (0.3 * np.sin(2 * np.pi * 440 * t) + noise).astype(np.float32)


def written(path, y, **options):
    soundfile.write(path, np.stack([y, 0.7 * y], 1), SR, **options)
    return path.read_bytes()


def decoded(path, content):
    """Mono samples at the file's rate, and the notes."""
    path.write_bytes(content)
    notes = []
    return np.concatenate(list(decode.read_blocks(path, sr=SR, notes=notes))), notes


def flac_with_length(content, samples):
    word = int.from_bytes(content[18:26], "big")
    return content[:18] + (word >> 36 << 36 | samples).to_bytes(8, "big") + content[26:]


def wav_with_length(content, size):
    assert content[36:40] == b"data"
    return content[:40] + struct.pack("<I", size) + content[44:]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("stated", [1, SR, 3 * SR])
def test_flac_goes_on_behind_its_header(tmp_path, y, subtype, stated):
    content = written(tmp_path / "a.flac", y, subtype=subtype)
    whole, notes = decoded(tmp_path / "a.flac", content)
    assert notes == []
    longer, notes = decoded(tmp_path / "a.flac", flac_with_length(content, stated))
    np.testing.assert_allclose(longer, whole, atol=1e-6)
    assert notes == [f"its header states {stated / SR:.1f} s, 4.0 s decode"]
    assert decode.duration(tmp_path / "a.flac") == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("stated", [0, 4, SR, 2 * SR * 4])
def test_wav_goes_on_behind_its_header(tmp_path, y, stated):
    content = written(tmp_path / "a.wav", y, subtype="PCM_16")
    whole, _ = decoded(tmp_path / "a.wav", content)
    longer, notes = decoded(tmp_path / "a.wav", wav_with_length(content, stated))
    np.testing.assert_array_equal(longer, whole)
    assert notes == ([f"its header states {stated / SR / 4:.1f} s, 4.0 s decode"] if stated else [])


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "PCM_U8"])
def test_every_kind_of_pcm_goes_on_behind_its_header(tmp_path, y, subtype):
    content = written(tmp_path / "a.wav", y, subtype=subtype)
    whole, _ = decoded(tmp_path / "a.wav", content)
    place = content.index(b"data") + 4
    size = int.from_bytes(content[place : place + 4], "little")
    shorter = content[:place] + struct.pack("<I", size // 24 * 6) + content[place + 4 :]
    longer, notes = decoded(tmp_path / "a.wav", shorter)
    np.testing.assert_allclose(longer[: len(whole)], whole, atol=1e-6)
    assert notes == ["its header states 1.0 s, 4.0 s decode"]


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_joined_files_are_decoded_to_the_end(tmp_path, y, kind):
    first, second = (written(tmp_path / f"a.{kind}", part, subtype="PCM_16") for part in (y, y[: 3 * SR]))
    longer, notes = decoded(tmp_path / f"a.{kind}", first + second)
    assert len(longer) == pytest.approx(7 * SR, abs=50)  # the second header of a WAV file sounds
    assert notes == ["its header states 4.0 s, 7.0 s decode"]


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        b"LIST" + struct.pack("<I", 100_000) + bytes(100_000),
        b"id3 " + struct.pack("<I", 50_001) + b"\xff" * 50_002,
        bytes(200_000),  # padding
        b"\x01" * 2000,  # too little to be missed
    ],
)
def test_what_may_stand_behind_the_samples_of_a_wav_is_no_sound(tmp_path, y, behind):
    content = written(tmp_path / "a.wav", y, subtype="PCM_16")
    whole, notes = decoded(tmp_path / "a.wav", content + behind)
    assert len(whole) == len(y) and notes == []


def test_whole_flac_files_are_as_their_headers_say(music, tmp_path):
    for path in sorted(music.glob("*.ogg"))[:6]:
        soundfile.write(tmp_path / "x.flac", *soundfile.read(path, stop=300_000))
        with open(tmp_path / "x.flac", "rb") as file:
            assert flac_beyond_header(file, 0) is None


def test_damaged_headers_are_no_error(tmp_path, y, rng):
    contents = {
        flac_beyond_header: written(tmp_path / "a.flac", y[:9000]),
        wav_beyond_header: written(tmp_path / "a.wav", y[:9000]),
    }
    for function, content in contents.items():
        for _ in range(200):
            changed = bytearray(content[: rng.integers(1, len(content))])
            for place in rng.integers(0, min(len(changed), 64), 5):
                changed[place] = rng.integers(256)
            (tmp_path / "x").write_bytes(changed)
            with open(tmp_path / "x", "rb") as file:
                stated = function(file, 0)
            assert stated is None or stated >= 0


def mp3(path, y, **options):
    with av.open(str(path), "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=SR, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(y[None], format="fltp", layout="mono")
        frame.sample_rate = SR
        stream.codec_context.open()
        resampler = av.AudioResampler(stream.codec_context.format, "mono", SR, stream.codec_context.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("options", [{"b": "128000"}, {"b": "320000"}], ids=str)
@pytest.mark.parametrize("frames", [10, 5000])
def test_an_mp3_header_that_cannot_be_right_is_not_believed(tmp_path, y, options, frames):
    content = mp3(tmp_path / "a.mp3", y, **options)
    whole, notes = decoded(tmp_path / "a.mp3", content)
    assert notes == [] and len(whole) / SR == pytest.approx(4, abs=0.06)
    place = max(content.find(b"Info"), content.find(b"Xing"))
    assert place > 0
    changed = content[: place + 8] + struct.pack(">I", frames) + content[place + 12 :]
    longer, notes = decoded(tmp_path / "a.mp3", changed)
    assert len(longer) / SR == pytest.approx(4, abs=0.06)
    assert notes == [f"its header states {frames * 1152 / SR:.1f} s, {len(longer) / SR:.1f} s decode"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["x.mp3", "x.flac"])
def test_noise_is_no_sound(tmp_path, seed, name):
    noise = np.random.default_rng(seed).bytes((3000, 50_000, 900_000)[seed % 3])
    content = b"\x1f\x8b\x08\0\0\0\0\0" + noise if name.endswith("flac") else noise
    (tmp_path / name).write_bytes(content)
    with pytest.raises(decode.InputError, match="is not audio|decodes"):
        list(decode.read_blocks(tmp_path / name, sr=22050))
