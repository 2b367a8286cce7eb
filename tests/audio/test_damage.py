"""Damaged and implausible files: what decodes is used with its share, the rest has one line of reason."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fit import fit_sine, sine
from test_formats import encode

from msim_tf.audio import decode
from msim_tf.errors import InputError

CASES = Path(__file__).parent / "data"
SECONDS = 8.0
CODED = {
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}
PCM = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
}
FFMPEG = {"wma": ("asf", "wmav2"), "wv": ("wv", "wavpack"), "tta": ("tta", "tta"), "mka": ("matroska", "libmp3lame")}


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).normal(0, 0.1, round(SECONDS * 48000)).astype(np.float32)


def write(folder, suffix, y):
    path = folder / f"a.{suffix}"
    if suffix in FFMPEG:
        return encode(path, y, 48000, *FFMPEG[suffix])
    soundfile.write(path, y, 48000, **{**CODED, **PCM}[suffix])
    return path


def decoded(path, sr=22050, **options):
    notes = []
    blocks = list(decode.read_blocks(path, sr=sr, notes=notes, **options))
    return np.concatenate(blocks), notes


def keep(path, share):
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])


@pytest.mark.parametrize("suffix", ["flac", "mp3", *PCM, *FFMPEG])
def test_most_of_a_file_is_used_and_its_share_is_said(tmp_path, noise, suffix):
    path = write(tmp_path, suffix, noise)
    keep(path, 0.75)

    y, notes = decoded(path)

    share = len(y) / 22050 / SECONDS
    assert share == pytest.approx(0.75, abs=0.1)
    (note,) = notes
    percent, length = re.fullmatch(r"damaged: (\d+) % of (8\.\d) s decodes", note).groups()
    assert int(percent) == pytest.approx(100 * share, abs=2)


@pytest.mark.parametrize("suffix", ["flac", "mp3", *PCM, *FFMPEG])
def test_less_than_half_of_a_file_is_refused(tmp_path, noise, suffix):
    path = write(tmp_path, suffix, noise)
    keep(path, 0.3)
    with pytest.raises(InputError, match=rf"a\.{suffix}: truncated or damaged, only [23]\d % of 8\.\d s decodes"):
        decoded(path)


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_ogg_without_its_end_says_what_is_there(tmp_path, noise, suffix):
    path = write(tmp_path, suffix, noise)
    keep(path, 0.6)

    y, notes = decoded(path)

    assert 3.5 < len(y) / 22050 < 6.5
    assert notes == [f"damaged: its last page is missing, {len(y) / 22050:.1f} s decode"]


@pytest.mark.parametrize("suffix", [*CODED, "wma", "wv", "mka"])
@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_a_hole_costs_what_lies_in_it(tmp_path, noise, rng, suffix, filling):
    path = write(tmp_path, suffix, noise)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000) if filling == "zeros" else rng.bytes(3000)
    path.write_bytes(data)

    y, notes = decoded(path)

    assert len(y) / 22050 > 0.6 * SECONDS
    assert [note for note in notes if note.startswith("damaged: ")] == notes
    if len(y) / 22050 < SECONDS - 0.5:
        assert notes
    # What lies behind the hole is there: the last second sounds as before, moved by less than a sample at most.
    whole, _ = decoded(write(tmp_path, suffix, noise))
    tail = whole[-22050:-11025]
    match = np.correlate(y[-33075:], tail)
    assert match.max() > 0.6 * np.dot(tail, tail)


@pytest.mark.parametrize(
    ("suffix", "container", "encoder"),
    [
        ("tta", "tta", "tta"),
        ("wv", "wv", "wavpack"),
        ("mka", "matroska", "flac"),
        ("oga", "ogg", "flac"),
        ("ac3", "ac3", "ac3"),
        ("eac3", "eac3", "eac3"),
    ],
)
def test_what_fails_its_checksum_is_damage_and_no_sound(tmp_path, noise, suffix, container, encoder):
    path = encode(tmp_path / f"a.{suffix}", noise, 48000, container, encoder, strict="experimental")
    whole, notes = decoded(path, sr=48000)
    assert notes == []
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    y, (note,) = decoded(path, sr=48000)

    assert re.fullmatch(r"damaged: \d+(\.\d)? % of \d\.\d s decodes", note)
    # Only whole packets are missing, of at most 2 s: no sample is another than it was, but next to the seam. AC-3
    # dithers at random.
    atol = 0.06 if suffix.endswith("ac3") else 0.0
    lost = len(whole) - len(y)
    assert 0 < lost < 2 * 48000
    first = np.flatnonzero(np.abs(y - whole[: len(y)]) > atol)[0]
    np.testing.assert_allclose(y[first + 4096 :], whole[first + lost + 4096 :], rtol=0, atol=atol)


def test_what_a_decoder_only_logs_is_damage(tmp_path):
    data = bytearray((CASES / "tone.mpc").read_bytes())
    data[2354] ^= 0x10  # libavcodec: "Overread 8"
    (tmp_path / "a.mpc").write_bytes(data)
    assert decoded(tmp_path / "a.mpc")[1] == ["damaged: 73 % of 6.0 s decodes"]


def test_a_checksum_of_monkeys_audio_counts(tmp_path):
    path = tmp_path / "a.ape"
    path.write_bytes(silent_ape(frames=4))
    y, notes = decoded(path, sr=44100)
    assert len(y) == 4 * 73728 and notes == []
    path.write_bytes(silent_ape(frames=4, damaged=2))
    y, notes = decoded(path, sr=44100)
    assert len(y) == 3 * 73728 and notes == ["damaged: 75 % of 6.7 s decodes"]


def silent_ape(frames, damaged=None):
    """Monkey's Audio 3.99 of digital silence: each frame is a checksum, a flag, and room to begin decoding."""
    block = 73728
    checksum = zlib.crc32(bytes(block * 4)) >> 1
    bodies = [struct.pack("<II8x", 0x80000000 | checksum ^ (number == damaged), 3) for number in range(frames)]
    header = struct.pack("<HHIIIHHI", 1000, 0, block, block, frames, 16, 2, 44100)
    data_begins = 52 + len(header) + 4 * frames
    table = struct.pack(f"<{frames}I", *(data_begins + 16 * number for number in range(frames)))
    descriptor = struct.pack(
        "<4sHHIIIIIII16s", b"MAC ", 3990, 0, 52, len(header), len(table), 0, 16 * frames, 0, 0, b""
    )
    return descriptor + header + table + b"".join(bodies)


def test_a_truncated_m4a_names_its_index(tmp_path, noise):
    path = encode(tmp_path / "a.m4a", noise, 48000, "ipod", "aac")
    keep(path, 0.7)
    with pytest.raises(InputError, match=r"a\.m4a: truncated or damaged, its index \(moov\) cannot be read"):
        decoded(path)
    # With the index in front, as shops and web sites write it, what is there decodes.
    path = encode(tmp_path / "b.m4a", noise, 48000, "ipod", "aac", movflags="+faststart")
    keep(path, 0.7)
    y, notes = decoded(path)
    assert len(notes) == 1 and notes[0].startswith("damaged: ") and 0.6 < len(y) / 22050 / SECONDS < 0.75


def test_the_collected_cases(tmp_path):
    for name, seconds in (("segment_without_start.flac", 10.0), ("unseekable.caf", 5.0), ("unseekable.snd", 4.94)):
        y, notes = decoded(CASES / name)
        assert len(y) / 22050 == pytest.approx(seconds, abs=0.1) and notes == []
    y, notes = decoded(CASES / "header.opus")  # a damaged FLAC under another name
    assert 4.5 < len(y) / 22050 < 5.0 and notes == ["damaged: 98 % of 5.0 s decodes"]
    with pytest.raises(InputError, match=r"truncated\.flac: truncated or damaged, nothing decodes"):
        decoded(CASES / "truncated.flac")
    with pytest.raises(InputError, match=r"unseekable\.wav: truncated or damaged, only 3 % of 5\.\d s decodes"):
        decoded(CASES / "unseekable.wav")


def test_a_header_that_states_less_than_there_is_disagrees(tmp_path):
    first, second = tmp_path / "a.mp3", tmp_path / "b.mp3"
    soundfile.write(first, sine(440.0, 44100, 2.0), 44100)
    soundfile.write(second, sine(440.0, 44100, 4.0), 44100)
    first.write_bytes(first.read_bytes() + second.read_bytes())

    y, notes = decoded(first)

    assert len(y) / 22050 == pytest.approx(6.0, abs=0.2)
    assert len(notes) == 1 and notes[0].startswith("its header states 2.0 s, 6.")


@pytest.mark.parametrize("rate", [0, 1, 100, 999, 768_001, 2**31 - 1])
def test_an_implausible_rate_is_refused_at_once(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(200_000), 8000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.wav: (its header states a sample rate of|is not audio|holds no sound)"):
        decoded(path)


@pytest.mark.parametrize("rate", [1000, 4000, 192_000, 384_000, 768_000])
def test_a_plausible_rate_is_not(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", sine(200.0, rate, 1.0), rate)
    y, _ = decoded(tmp_path / "a.wav")
    assert fit_sine(y, 22050, 200.0)[0] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10])
@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_sound_are_refused(tmp_path, value, channels, subtype):
    y = np.stack([sine(440.0, 8000, 2.0)] * channels, axis=1).astype(np.float64)
    y[12000] = value  # in all channels, so that a sum would overflow
    soundfile.write(tmp_path / "a.wav", y, 8000, subtype=subtype)
    with pytest.raises(
        InputError, match=r"a\.wav: holds (NaN or infinite samples|samples of .* times full scale) near"
    ):
        decoded(tmp_path / "a.wav")


def test_the_loudest_samples_that_pass_have_finite_features(tmp_path, small_params):
    from msim_tf.features.extractor import Extractor
    from msim_tf.features.from_file import extract_file

    rng = np.random.default_rng(1)
    y = np.where(rng.random((8000 * 5, 2)) < 0.5, -(2.0**31), 2.0**31)
    soundfile.write(tmp_path / "a.wav", y, 8000, subtype="FLOAT")
    features = extract_file(tmp_path / "a.wav", Extractor(small_params))
    for array in (features.mel, features.onset, features.cens):
        assert np.isfinite(array.astype(np.float16)).all()


def test_channels_that_cancel_are_not_called_silent(tmp_path):
    left = sine(440.0, 44100, 2.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 44100)
    with pytest.raises(InputError, match=r"a\.wav: left and right cancel each other"):
        decoded(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.stack([left, -0.9 * left], axis=1), 44100)
    assert len(decoded(tmp_path / "b.wav")[0]) == 44100


def test_what_is_too_long_is_refused_by_header_and_by_count(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(8000 * 30), 8000)
    with pytest.raises(decode.TooLong, match=r"a\.flac: is longer than 20 s"):
        decoded(tmp_path / "a.flac", max_seconds=20.0)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the header does not say how long it is
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(decode.TooLong, match=r"a\.flac: is longer than 20 s"):
        decoded(tmp_path / "a.flac", max_seconds=20.0)
    assert len(decoded(tmp_path / "a.flac", max_seconds=30.0)[0]) == 30 * 22050


@pytest.mark.parametrize(
    "error", [RuntimeError("of its own"), MemoryError(), ValueError(""), OSError(5, "Input/output error")]
)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, error):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)

    def read(*_, **__):
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(InputError, match=r"a\.wav: (cannot be|needs more memory)"):
        decoded(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "suffix", ["wav", "flac", "ogg", "opus", "mp3", "aiff", "au", "caf", "w64", "wma", "wv", "tta", "mka"]
)
def test_mutated_files_end_in_samples_or_a_reason(tmp_path, noise, rng, suffix):
    path = write(tmp_path, suffix, noise[:96000])
    data = path.read_bytes()
    for _ in range(12):
        mutated = bytearray(data)
        for position in rng.integers(0, len(data), 30):
            mutated[position if rng.random() < 0.5 else position % 200] = rng.integers(256)
        path.write_bytes(mutated)
        try:
            y, _ = decoded(path, max_seconds=60.0)
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert np.isfinite(y).all()
