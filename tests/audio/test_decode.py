"""Decoding: what is written is read back; the oracles are sine theory, one-shot soxr, and librosa."""

import os
import struct

import numpy as np
import pytest
import soundfile
import soxr
from fit import fit_sine, sine

from msim_tf.audio import decode
from msim_tf.audio.scan import scan_folder
from msim_tf.errors import InputError

ENCODINGS = {
    "wav": {"subtype": "FLOAT"},
    "flac": {"subtype": "PCM_16"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


def write(path, y, sr):
    soundfile.write(path, y, sr, **ENCODINGS[path.suffix[1:]])
    return path


RATES = (8000, 16000, 22050, 44100, 48000)
OPUS_RATES = (8000, 16000, 48000)
WRITABLE = [(suffix, rate) for suffix in ENCODINGS for rate in (OPUS_RATES if suffix == "opus" else RATES)]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("suffix", "native"), WRITABLE)
def test_every_format_gives_the_sine_that_was_written(tmp_path, suffix, native, channels):
    left = sine(440.0, native, 2.0)
    y = left if channels == 1 else np.stack([left, np.zeros_like(left)], axis=1)
    path = write(tmp_path / f"a.{suffix}", y, native)

    clip = decode.load_clip(path, sr=22050)

    assert clip.dtype == np.float32 and clip.ndim == 1
    assert abs(len(clip) - 44100) <= 0.06 * 22050  # MP3 frames at 8 kHz are 72 ms
    amplitude, rest = fit_sine(clip, 22050, 440.0)
    assert amplitude == pytest.approx(0.5 / channels, rel=0.02)
    assert rest < (1e-4 if suffix in ("wav", "flac") else 0.025)  # what the lossy codecs themselves add at 8 kHz
    assert decode.duration(path) == pytest.approx(2.0, abs=0.06)


def test_four_channels_are_averaged(tmp_path):
    y = np.stack([sine(440, 8000, 1) * gain for gain in (1, 0, 0.5, 0.5)], axis=1)
    clip = decode.load_clip(write(tmp_path / "a.wav", y, 8000), sr=8000)
    np.testing.assert_allclose(clip, sine(440, 8000, 1) * 0.5, atol=1e-7)


@pytest.mark.parametrize("native", [8000, 11025, 44100, 48000])
@pytest.mark.parametrize("block_seconds", [0.03, 1.0, 60.0])
def test_blocks_together_equal_resampling_at_once(tmp_path, rng, native, block_seconds):
    stereo = rng.normal(0, 0.2, (native * 3 + 17, 2)).astype(np.float32)
    path = write(tmp_path / "a.wav", stereo, native)

    blocks = list(decode.read_blocks(path, sr=22050, block_seconds=block_seconds))

    expected = soxr.resample(stereo.mean(axis=1), native, 22050, quality="HQ")
    assert all(len(block) for block in blocks)
    assert max(map(len, blocks)) <= (block_seconds + 1) * 22050
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=2e-6)


def test_hours_need_the_memory_of_a_block(tmp_path):
    import tracemalloc

    frames = 8000 * 60 * 20
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8000, 2, subtype="PCM_16") as file:
        for _ in range(20):
            file.write(np.full((8000 * 60, 2), 0.25, np.float32))
    tracemalloc.start()
    try:
        samples = sum(len(block) for block in decode.read_blocks(path, sr=16000, block_seconds=5.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert samples == frames * 2
    assert peak < 5e6  # the whole would be 77 MB decoded and 77 MB resampled


def test_real_clips_equal_librosa(music):
    import librosa

    for name in ("zaz__mus1.ogg", "wesnoth__heroes_rite.ogg", "marsshooter__tutorial.ogg"):
        expected, _ = librosa.load(music / name, sr=22050, res_type="soxr_hq")
        np.testing.assert_allclose(decode.load_clip(music / name, sr=22050), expected, atol=2e-6)


@pytest.mark.parametrize("suffix", list(ENCODINGS))
def test_a_cut_equals_the_whole_at_the_same_place(tmp_path, rng, suffix):
    path = write(tmp_path / f"a.{suffix}", rng.normal(0, 0.1, (48000 * 4, 2)).astype(np.float32), 48000)
    whole = decode.load_clip(path, sr=48000)
    for offset, seconds in ((0.0, 1.0), (1.2345, 1.5), (3.5, 9.0)):
        cut = decode.load_clip(path, sr=48000, offset=offset, seconds=seconds)
        start = round(offset * 48000)
        np.testing.assert_array_equal(cut, whole[start : start + round(seconds * 48000)])


def test_a_cut_has_its_length_at_another_rate(tmp_path):
    path = write(tmp_path / "a.wav", sine(300, 44100, 4), 44100)
    cut = decode.load_clip(path, sr=22050, offset=1.0, seconds=2.0)
    assert len(cut) == 44100
    assert fit_sine(cut, 22050, 300)[0] == pytest.approx(0.5, rel=1e-4)


def test_a_wav_written_to_a_pipe_is_whole(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(440, 8000, 1), 8000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(decode.load_clip(path, sr=8000)) == 8000


def test_each_reason_is_named(tmp_path):
    def reason(name, match):
        for call in (decode.duration, lambda path: decode.load_clip(path, sr=22050)):
            with pytest.raises(InputError, match=match):
                call(tmp_path / name)

    reason("none.wav", r"none\.wav: cannot be read \(No such file")
    (tmp_path / "folder.wav").mkdir()
    reason("folder.wav", "Is a directory")
    (tmp_path / "empty.mp3").touch()
    reason("empty.mp3", r"empty\.mp3: is an empty file")
    for name in ("text.wav", "text.mp3", "text.ogg", "text.raw"):
        (tmp_path / name).write_text("not music at all " * 500)
        reason(name, rf"{name}: is not audio")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 8000)
    with pytest.raises(InputError, match=r"nothing\.wav: holds no samples"):
        decode.load_clip(tmp_path / "nothing.wav", sr=8000)
    soundfile.write(tmp_path / "one.wav", np.ones(1), 48000)
    with pytest.raises(InputError, match=r"one\.wav: is shorter than one sample"):
        decode.load_clip(tmp_path / "one.wav", sr=8000)
    with pytest.raises(InputError, match=r"holds no samples at 5 s"):
        decode.load_clip(write(tmp_path / "short.wav", sine(440, 8000, 1), 8000), sr=8000, offset=5.0)


def test_a_file_without_permission_is_named(tmp_path):
    path = write(tmp_path / "secret.wav", sine(440, 8000, 1), 8000)
    path.chmod(0)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything, so the test is nobody for a moment
    try:
        with pytest.raises(InputError, match=r"secret\.wav: cannot be read \(Permission denied"):
            decode.duration(path)
        with pytest.raises(InputError, match=r"locked.*: cannot be read \(Permission denied"):
            scan_folder(locked)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_an_error(tmp_path, value):
    y = sine(440, 8000, 2)
    y[12000] = value
    with pytest.raises(InputError, match=r"a\.wav: holds NaN or infinite samples near"):
        decode.load_clip(write(tmp_path / "a.wav", y, 8000), sr=22050)


def test_a_name_that_is_no_utf8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    with open(path, "wb") as file:
        soundfile.write(file, np.zeros(8000), 8000, format="WAV")
    assert len(decode.load_clip(path, sr=8000)) == 8000
