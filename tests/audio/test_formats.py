"""Every container and coder: the sine that was encoded comes out, at its length, whatever the file is called."""

import io
import shutil
import struct

import av
import numpy as np
import pytest
import soundfile
from fit import fit_sine, sine

from msim_tf.audio import decode, kinds
from msim_tf.errors import InputError

# suffix, FFmpeg's container, its encoder
ENCODED = [
    ("m4a", "ipod", "aac"),
    ("m4a", "ipod", "alac"),
    ("aac", "adts", "aac"),
    ("wma", "asf", "wmav2"),
    ("wv", "wv", "wavpack"),
    ("tta", "tta", "tta"),
    ("mka", "matroska", "flac"),
    ("webm", "webm", "libopus"),
    ("mp2", "mp2", "mp2"),
    ("mp3", "mp3", "libmp3lame"),
    ("ac3", "ac3", "ac3"),
    ("eac3", "eac3", "eac3"),
    ("oga", "ogg", "flac"),
    ("wav", "wav", "adpcm_ima_wav"),
    ("caf", "caf", "alac"),
    ("voc", "voc", "pcm_s16le"),
]


def encode(path, y, rate, container, encoder, **options):
    """Writes [samples] or [samples, 2] float32 with FFmpeg."""
    stereo = np.stack([y, y]) if y.ndim == 1 else y.T
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(encoder, rate=rate, layout="stereo")
        stream.bit_rate = 192_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(stereo, np.float32), format="fltp", layout="stereo")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            stream.codec_context.format.name, "stereo", rate, frame_size=stream.codec_context.frame_size or 4096
        )
        position = 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            part.pts = position
            position += part.samples
            file.mux(stream.encode(part))
        file.mux([packet for packet in stream.encode(None) if packet.size])
    return path


@pytest.mark.parametrize(("suffix", "container", "encoder"), ENCODED)
def test_the_sine_that_was_encoded_comes_out(tmp_path, suffix, container, encoder):
    rate = 48000 if encoder == "libopus" else 44100
    path = encode(tmp_path / f"a.{suffix}", sine(440.0, rate, 3.0), rate, container, encoder)
    notes = []

    y = np.concatenate(list(decode.read_blocks(path, sr=22050, notes=notes)))

    assert abs(len(y) / 22050 - 3.0) < 0.1 and notes == []
    amplitude, rest = fit_sine(y, 22050, 440.0)
    assert amplitude == pytest.approx(0.5, rel=0.05) and rest < 0.03
    assert path.suffix in kinds.AUDIO_SUFFIXES
    assert decode.duration(path) == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(("suffix", "container", "encoder"), ENCODED[:4])
def test_a_cut_is_the_whole_at_the_same_place(tmp_path, rng, suffix, container, encoder):
    noise = rng.normal(0, 0.1, 44100 * 3).astype(np.float32)
    path = encode(tmp_path / f"a.{suffix}", noise, 44100, container, encoder)
    whole = decode.load_clip(path, sr=44100)

    cut = decode.load_clip(path, sr=44100, offset=1.25, seconds=1.0)

    np.testing.assert_array_equal(cut, whole[55125:99225])


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.flac", "a.m4a", "a.ogg"])
@pytest.mark.parametrize(
    ("container", "encoder"), [("adts", "aac"), ("ipod", "aac"), ("mp3", "libmp3lame"), ("wav", "pcm_s16le")]
)
def test_the_content_counts_and_not_the_name(tmp_path, name, container, encoder):
    path = encode(tmp_path / name, sine(440.0, 44100, 2.0), 44100, container, encoder)

    y = decode.load_clip(path, sr=22050)

    assert abs(len(y) / 22050 - 2.0) < 0.1
    assert fit_sine(y, 22050, 440.0)[0] == pytest.approx(0.5, rel=0.05)


def id3(size):
    """An ID3v2.4 tag with ``size`` bytes of padding."""
    digits = [size >> shift & 127 for shift in (21, 14, 7, 0)]
    return b"ID3\x04\0\0" + bytes(digits) + bytes(size)


@pytest.mark.parametrize("coder", [("mp3", "libmp3lame"), ("adts", "aac"), ("flac", "flac")])
def test_tags_in_front_and_behind_change_nothing(tmp_path, coder):
    plain = encode(tmp_path / "plain", sine(440.0, 44100, 2.0), 44100, *coder)
    data = plain.read_bytes()
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(id3(150_000) + id3(3000) + data[data.startswith(b"ID3") and 45 :] + b"TAG" + bytes(125))
    notes = []

    y = np.concatenate(list(decode.read_blocks(tagged, sr=44100, notes=notes)))

    assert abs(len(y) / 44100 - 2.0) < 0.1 and notes == []
    assert fit_sine(y, 44100, 440.0)[0] == pytest.approx(0.5, rel=0.05)


def test_an_mp3_without_a_frame_count_decodes_to_its_end(tmp_path, rng):
    # Half silence and half noise at a variable bit rate: the first seconds mislead any estimate.
    y = np.concatenate([rng.normal(0, 0.3, 44100 * 10), np.zeros(44100 * 20)]).astype(np.float32)
    path = encode(tmp_path / "a.mp3", y, 44100, "mp3", "libmp3lame", write_xing="0", id3v2_version="0")
    assert b"Xing" not in path.read_bytes() and b"Info" not in path.read_bytes()

    assert abs(len(decode.load_clip(path, sr=8000)) / 8000 - 30.0) < 0.2
    assert decode.duration(path) == pytest.approx(30.0, abs=0.2)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
@pytest.mark.parametrize("same", [True, False])
def test_files_one_behind_the_other_decode_to_the_last(tmp_path, suffix, same):
    kind = {"ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", None)}[suffix]
    for name, frequency, seconds in (("a", 440.0, 2.0), ("b", 660.0, 3.0)):
        soundfile.write(tmp_path / name, sine(frequency, 48000, seconds), 48000, format=kind[0], subtype=kind[1])
    second = "a" if same else "b"
    path = tmp_path / f"chained.{suffix}"
    path.write_bytes((tmp_path / "a").read_bytes() + (tmp_path / second).read_bytes())

    y = decode.load_clip(path, sr=48000)

    assert abs(len(y) / 48000 - (4.0 if same else 5.0)) < 0.2
    tail = y[round(2.5 * 48000) : round(3.7 * 48000)]
    assert fit_sine(tail, 48000, 440.0 if same else 660.0)[0] == pytest.approx(0.5, rel=0.05)


def test_a_chain_whose_rate_and_channels_change_keeps_its_pitch(tmp_path):
    soundfile.write(tmp_path / "a.ogg", sine(440.0, 44100, 2.0), 44100, format="OGG", subtype="VORBIS")
    second = np.stack([sine(440.0, 22050, 2.0)] * 2, axis=1)
    soundfile.write(tmp_path / "b.ogg", second, 22050, format="OGG", subtype="VORBIS")
    path = tmp_path / "chained.ogg"
    path.write_bytes((tmp_path / "a.ogg").read_bytes() + (tmp_path / "b.ogg").read_bytes())

    y = decode.load_clip(path, sr=16000)

    assert abs(len(y) / 16000 - 4.0) < 0.1
    assert fit_sine(y[round(2.3 * 16000) : round(3.8 * 16000)], 16000, 440.0)[0] == pytest.approx(0.5, rel=0.05)


def test_flac_whose_channels_change_decodes_to_its_end(tmp_path):
    # Frames of a mono stream behind those of a stereo stream; FLAC frames carry their own channels.
    parts = []
    for channels in (2, 1):
        file = io.BytesIO()
        soundfile.write(file, np.stack([sine(440.0, 44100, 2.0)] * channels, axis=1), 44100, format="FLAC")
        parts.append(file.getvalue())
    first_frame = parts[1].index(b"\xff\xf8", 42)
    path = tmp_path / "a.flac"
    path.write_bytes(parts[0] + parts[1][first_frame:])

    y = decode.load_clip(path, sr=44100)

    assert len(y) >= 2 * 44100
    assert fit_sine(y, 44100, 440.0)[0] > 0.2


@pytest.mark.parametrize("suffix", ["flac", "wav", "aiff", "au"])
def test_what_a_pipe_writes_without_its_length_is_whole(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sine(440.0, 44100, 2.0), 44100, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    if suffix == "flac":  # 36 bits of samples at the end of STREAMINFO's byte 13
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    elif suffix == "wav":
        data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    elif suffix == "aiff":
        start = data.index(b"COMM")
        data[start + 10 : start + 14] = bytes(4)
        start = data.index(b"SSND")
        data[start + 4 : start + 8] = bytes(4)
    else:
        data[8:12] = b"\xff" * 4
    path.write_bytes(data)
    notes = []

    y = np.concatenate(list(decode.read_blocks(path, sr=22050, notes=notes)))

    assert len(y) == pytest.approx(44100, abs=10) and notes == []
    assert fit_sine(y, 22050, 440.0)[0] == pytest.approx(0.5, rel=0.01)


def test_protected_music_says_so(tmp_path):
    path = encode(tmp_path / "a.m4a", sine(440.0, 44100, 1.0), 44100, "ipod", "aac")
    data = path.read_bytes()
    for number, sample_entry in enumerate((b"drms", b"enca")):
        copy = tmp_path / f"{number}.m4p"
        copy.write_bytes(data.replace(b"mp4a", sample_entry, 1))
        with pytest.raises(InputError, match=r"\.m4p: is protected by DRM"):
            decode.load_clip(copy, sr=22050)
    wma = encode(tmp_path / "a.wma", sine(440.0, 44100, 1.0), 44100, "asf", "wmav2")
    content_encryption = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    wma.write_bytes(wma.read_bytes()[:30] + content_encryption + wma.read_bytes()[30:])
    with pytest.raises(InputError, match=r"a\.wma: is protected by DRM"):
        decode.load_clip(wma, sr=22050)


def test_a_playlist_opens_no_other_file(tmp_path):
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, sine(440.0, 8000, 2.0), 8000)
    playlists = {
        "hls.mp3": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "concat.mp3": f"ffconcat version 1.0\nfile '{secret}'\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="is not audio"):
            decode.load_clip(tmp_path / name, sr=8000)


def test_without_pyav_the_reason_names_it(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.m4a", sine(440.0, 44100, 1.0), 44100, "ipod", "aac")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"a\.m4a: is not audio that libsndfile decodes; other formats need PyAV"):
        decode.load_clip(path, sr=22050)
    soundfile.write(tmp_path / "a.wav", sine(440.0, 8000, 1.0), 8000)
    assert len(decode.load_clip(tmp_path / "a.wav", sr=8000)) == 8000


def test_a_video_container_gives_its_sound(tmp_path):
    path = encode(tmp_path / "a.mka", sine(440.0, 44100, 2.0), 44100, "matroska", "aac")
    shutil.copy(path, tmp_path / "a.webm")
    assert abs(len(decode.load_clip(tmp_path / "a.webm", sr=22050)) / 22050 - 2.0) < 0.1
