"""Headers that state another length than the file has: all of it is decoded, and the user is told."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from msim_tf.audio import decode, kinds
from msim_tf.audio.flac_frames import flac_beyond_header

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


def shorten(content, suffix):
    """The file, with a header that states a quarter of its samples."""
    # Name of the chunk, where its length stands behind that, how it is written, what it counts besides the samples.
    name, behind, form, more = {
        "wav": (b"data", 4, "<I", 0),
        "aiff": (b"SSND", 4, ">I", 8),
        "caf": (b"data", 4, ">q", 4),
        "au": (b".snd", 8, ">I", 0),
        "rf64": (b"ds64", 16, "<Q", 0),
    }[suffix]
    place, width = content.index(name) + behind, struct.calcsize(form)
    (length,) = struct.unpack(form, content[place : place + width])
    quarter = (length - more) // 4 // 2048 * 2048
    return content[:place] + struct.pack(form, quarter + more) + content[place + width :], quarter / (length - more)


@pytest.mark.parametrize(
    ("suffix", "subtypes"),
    [
        ("wav", ["FLOAT", "PCM_24", "PCM_U8", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"]),
        ("aiff", ["PCM_16", "PCM_24", "FLOAT", "ULAW"]),
        ("caf", ["PCM_16", "DOUBLE"]),
        ("au", ["PCM_16", "FLOAT", "ULAW"]),
        ("rf64", ["PCM_16", "FLOAT"]),
    ],
)
def test_samples_of_every_container_go_on_behind_its_header(tmp_path, y, suffix, subtypes):
    for subtype in subtypes:
        content = written(tmp_path / f"a.{suffix}", y, subtype=subtype)
        whole, notes = decoded(tmp_path / f"a.{suffix}", content)
        assert notes == []
        shorter, share = shorten(content, suffix)
        longer, notes = decoded(tmp_path / f"a.{suffix}", shorter)
        # FFmpeg and libsndfile step the quantisers of ADPCM a little differently.
        np.testing.assert_allclose(longer[: len(whole)], whole, atol=0.03 if "ADPCM" in subtype else 1e-4)
        (note,) = notes
        assert note.endswith(f" s, {len(whole) / SR:.1f} s decode"), subtype
        assert float(note.split()[3]) == pytest.approx(share * len(whole) / SR, abs=0.1), subtype
        assert decode.duration(tmp_path / f"a.{suffix}") == pytest.approx(len(whole) / SR, abs=0.01)


@pytest.mark.parametrize("suffix", ["aiff", "caf"])
def test_a_chunk_behind_the_samples_is_no_sound(tmp_path, y, suffix):
    content = written(tmp_path / f"a.{suffix}", y, subtype="PCM_16")
    length = struct.pack(">I" if suffix == "aiff" else ">q", 200_000)
    whole, notes = decoded(tmp_path / f"a.{suffix}", content + b"free" + length + b"\x55" * 200_000)
    assert len(whole) == len(y) and notes == []


def test_the_last_part_of_a_cut_flac_stream_is_whole(tmp_path, y):
    """As ``ffmpeg -c:a flac -f segment`` leaves it: frames keep their numbers, the header counts the whole stream."""
    content = written(tmp_path / "a.flac", y, subtype="PCM_16")
    whole, _ = decoded(tmp_path / "a.flac", content)
    header = content[: 4 + 4 + 34]
    header = header[:4] + b"\x80" + header[5:]  # no other block of metadata
    place = 0
    for number in range(12):
        # Frames of 4,096 samples; below 128 their number is one byte, the fifth.
        place = content.index(b"\xff\xf8", place + 1)
        while content[place + 4] != number:
            place = content.index(b"\xff\xf8", place + 1)
    first = 11 * 4096
    part, notes = decoded(tmp_path / "a.flac", header + content[place:])
    assert notes == []
    np.testing.assert_array_equal(part, whole[first:])
    assert decode.duration(tmp_path / "a.flac") == pytest.approx(len(part) / SR)
    cut = decode.load_clip(tmp_path / "a.flac", sr=SR, offset=1.0, seconds=1.0)
    np.testing.assert_array_equal(cut, part[SR : 2 * SR])


TONE = Path(__file__).parent / "data" / "tone.mpc"  # 6 s of 440 Hz by mpcenc


def test_musepack_is_as_long_as_its_header_says(tmp_path):
    tone, notes = decoded(tmp_path / "a.mpc", TONE.read_bytes())
    assert len(tone) / SR == pytest.approx(6, abs=0.05) and notes == []
    assert decode.duration(TONE) == pytest.approx(6)
    cut, notes = decoded(tmp_path / "a.mpc", TONE.read_bytes()[:12_000])  # its seek table is gone
    assert notes == ["damaged: 67 % of 6.0 s decodes"] and 3.9 < len(cut) / SR < 4.3
    np.testing.assert_array_equal(cut[:SR], tone[:SR])


def dsf(seconds):
    """One-bit silence, as alternating bits, at 64 times 44,100 Hz."""
    count = round(seconds * 64 * SR)
    blocks = -(-count // 8 // 4096)
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, 64 * SR, 1, count, 4096, 0)
    data = b"\x55" * 4096 * blocks
    return (
        b"DSD "
        + struct.pack("<QQQ", 28, 92 + len(data), 0)
        + form
        + struct.pack("<4sQ", b"data", 12 + len(data))
        + data
    )


def test_a_dsf_file_that_ends_early_is_damaged(tmp_path):
    whole, notes = decoded(tmp_path / "a.dsf", dsf(2))
    assert len(whole) / SR == pytest.approx(2, abs=0.02) and notes == []
    (note,) = decoded(tmp_path / "a.dsf", dsf(2)[:500_000])[1]
    assert note == "damaged: 71 % of 2.0 s decodes"


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
    contents = [TONE.read_bytes(), dsf(0.1)]
    contents += [written(tmp_path / f"a.{suffix}", y[:9000]) for suffix in ("flac", "wav", "aiff", "caf", "au", "rf64")]
    for content in contents:
        for _ in range(150):
            changed = bytearray(content[: rng.integers(1, len(content))])
            for place in rng.integers(0, min(len(changed), 64), 5):
                changed[place] = rng.integers(256)
            (tmp_path / "x").write_bytes(changed)
            stated = kinds.sniff(tmp_path / "x").stated_seconds
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
