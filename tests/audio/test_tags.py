"""Tags of files that libsndfile tagged, of files whose tags are written here byte by
byte, and of hostile and broken ones.
"""

import struct
import sys

import av
import numpy as np
import pytest
import soundfile

from msim_tf.audio.ape_tags import read_ape_tags
from msim_tf.audio.sandbox import Decoder
from msim_tf.audio.tags import canonical_tags, read_tags

EXPECTED = {
    "artist": "Björk; Guest",
    "album_artist": "Björk",
    "album": "Post",
    "title": "Army of Me",
    "year": 1995,
    "genre": ["Rock", "Trip hop"],
}
COMMENTS = [
    *("ARTIST=Björk", "artist=Guest", "ALBUMARTIST=Björk", "Album=Post", "TITLE=Army of Me", "date=1995-06-13"),
    *("GENRE=Rock", "GENRE=Trip hop", "no separator", "DESCRIPTION=x"),
]


def silence(path, **options):
    soundfile.write(path, [0.0] * 800, 8000, **options)
    return path


def chunk(name, data, order="<"):
    """A RIFF or IFF chunk."""
    return name + struct.pack(order + "I", len(data)) + data + bytes(len(data) % 2)


def synchsafe(number):
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def id3(frames, *, version=4):
    """An ID3v2 tag; texts in UTF-8 (version 4), UTF-16 with byte order mark (3) or
    Latin-1 under three-letter names (2).
    """
    encode = {4: lambda text: b"\x03" + text.encode(), 3: lambda text: b"\x01" + text.encode("utf-16"), 2: None}[
        version
    ]
    body = b""
    for name, text in frames:
        data = encode(text) if encode else b"\x00" + text.encode("latin-1")
        size = {4: synchsafe(len(data)), 3: struct.pack(">I", len(data)), 2: struct.pack(">I", len(data))[1:]}[version]
        body += name.encode() + size + (b"" if version == 2 else bytes(2)) + data
    return b"ID3" + bytes([version, 0, 0]) + synchsafe(len(body)) + body


def id3v24():
    return id3(
        [
            *(("TPE1", "Björk\0Guest"), ("TPE2", "Björk"), ("TALB", "Post"), ("TIT2", "Army of Me")),
            *(("TDRC", "2015-01-01"), ("TDOR", "1995"), ("TCON", "17\0Trip hop")),  # genre 17 of ID3v1 is Rock
        ]
    )


def vorbis_comments(texts):
    texts = [text.encode() for text in texts]
    return struct.pack("<I", 0) + struct.pack("<I", len(texts)) + b"".join(struct.pack("<I", len(t)) + t for t in texts)


def flac(path, comments, *, block=None):
    """A FLAC file with ``comments`` in a block of its own right after the stream's."""
    data = silence(path).read_bytes()
    block = vorbis_comments(comments) if block is None else block
    # The stream's block is the first and has 34 bytes; libsndfile writes others after it.
    path.write_bytes(data[:42] + b"\x04" + struct.pack(">I", len(block))[1:] + block + data[42:])
    return path


def atom(name, *parts):
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + name + data


def m4a(path):
    def text(name, value):
        return atom(name, atom(b"data", struct.pack(">II", 1, 0), value.encode()))

    fields = [(b"\xa9ART", "Björk"), (b"aART", "Björk"), (b"\xa9alb", "Post"), (b"\xa9nam", "Army of Me")]
    fields += [(b"\xa9day", "1995-06-13T07:00:00Z"), (b"\xa9gen", "Rock; Trip hop")]
    items = atom(b"ilst", *(text(*pair) for pair in fields))
    head = atom(b"ftyp", b"M4A \0\0\0\0")
    path.write_bytes(head + atom(b"moov", atom(b"udta", atom(b"meta", bytes(4), items))))
    return path


@pytest.mark.parametrize(
    "suffix, subtype",
    [("flac", "PCM_16"), ("ogg", "VORBIS"), ("opus", "OPUS"), ("oga", "VORBIS"), ("wav", "PCM_16"), ("mp3", None)],
)
def test_tags_that_libsndfile_wrote(tmp_path, suffix, subtype):
    path = tmp_path / f"x.{suffix}"
    kind = "OGG" if suffix in ("ogg", "opus", "oga") else None
    artist = "Bjork" if suffix == "mp3" else "Björk"  # libsndfile writes UTF-8 into a tag that says Latin-1
    with soundfile.SoundFile(path, "w", 48000, 1, subtype, format=kind) as file:
        file.artist, file.title, file.album, file.date, file.genre = artist, "Army of Me", "Post", "1995", "Rock"
        file.write([0.0] * 4800)
    expected = {"artist": artist, "album": "Post", "title": "Army of Me", "year": 1995, "genre": ["Rock"]}
    assert read_tags(path) == expected


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff", "mp3", "au", "caf", "w64", "rf64"])
def test_no_tags(tmp_path, suffix):
    assert read_tags(silence(tmp_path / f"x.{suffix}")) == {}


def test_several_artists_and_genres_of_a_vorbis_comment(tmp_path):
    assert read_tags(flac(tmp_path / "x.flac", COMMENTS)) == EXPECTED


@pytest.mark.parametrize("suffix", ["mp3", "wav", "aiff"])
def test_several_artists_and_genres_of_an_id3_tag(tmp_path, suffix):
    path = silence(tmp_path / f"x.{suffix}")
    data = path.read_bytes()
    if suffix == "mp3":
        path.write_bytes(id3v24() + data)
    else:
        path.write_bytes(data + chunk(b"id3 ", id3v24()) if suffix == "wav" else data + chunk(b"ID3 ", id3v24(), ">"))
    assert read_tags(path) == EXPECTED


@pytest.mark.parametrize("version", [2, 3])
def test_older_id3_tags(tmp_path, version):
    names = {3: "TPE1 TALB TIT2 TYER TCON", 2: "TP1 TAL TT2 TYE TCO"}[version].split()
    texts = ["Björk", "Post", "Army of Me", "1995", "(17)"]
    path = silence(tmp_path / "x.mp3")
    path.write_bytes(id3(zip(names, texts), version=version) + path.read_bytes())
    expected = {key: EXPECTED[key] for key in ("album", "title", "year")}
    assert read_tags(path) == {**expected, "artist": "Björk", "genre": ["Rock"]}


def test_an_id3v1_tag_fills_what_the_newer_leaves_out(tmp_path):
    path = silence(tmp_path / "x.mp3")
    fields = (b"Cut off after thirty character", b"Somebody", b"Post", b"1995", b"", 17)
    path.write_bytes(
        id3([("TIT2", "Cut off after thirty characters")])
        + path.read_bytes()
        + b"TAG"
        + struct.pack("30s30s30s4s30sB", *fields)
    )
    expected = {"title": "Cut off after thirty characters", "artist": "Somebody", "album": "Post", "year": 1995}
    assert read_tags(path) == {**expected, "genre": ["Rock"]}


def test_tags_of_an_mp4_file(tmp_path):
    assert read_tags(m4a(tmp_path / "x.m4a")) == {**EXPECTED, "artist": "Björk"}


def test_original_years_come_first(tmp_path):
    comments = ["DATE=2015", "ORIGINALDATE=1995-06-13"]
    assert read_tags(flac(tmp_path / "x.flac", comments)) == {"year": 1995}
    assert read_tags(flac(tmp_path / "y.flac", ["YEAR=1995"])) == {"year": 1995}


def test_artists_beside_the_artist_are_not_told_twice(tmp_path):
    comments = ["ARTIST=Björk feat. Guest", "ARTISTS=Björk", "ARTISTS=Guest", "ALBUM ARTIST=Björk"]
    assert read_tags(flac(tmp_path / "x.flac", comments)) == {"artist": "Björk feat. Guest", "album_artist": "Björk"}


def test_tags_of_strangers_are_tamed():
    tags = canonical_tags(
        {
            "artist": ["a\x1b[31m\x00b\nc\ud800"],
            "title": "t" * 5000,
            "year": ["soon"],
            "genre": [" ;; ", "x;y", *map(str, range(30))],
            "album": ["\x00"],
        }
    )
    assert tags["artist"] == "a [31m b c?" and len(tags["title"]) == 300
    assert tags["genre"] == ["x", "y", *map(str, range(8))]
    assert "year" not in tags and "album" not in tags


@pytest.mark.parametrize(
    "name, data",
    [
        ("x.mp3", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(64)),
        ("x.mp3", b"ID3\x04\x00\x00\x00\x00\x00\x7fTIT2\x7f\x7f\x7f\x7f\x00\x00\x03x"),
        ("x.wav", b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\xffINFOINAM\xff\xff\xff\xff"),
        ("x.ogg", b"OggS\x00" + b"\xff" * 400),
        ("x.flac", b"fLaC\x84\xff\xff\xff" + b"\xff" * 40),
        ("x.m4a", struct.pack(">I4sIQ", 1, b"ftyp", 0, 2**63)),
        ("x.wav", b""),
        ("x.mp3", b"no sound at all"),
    ],
)
def test_hostile_bytes_tell_nothing(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert read_tags(tmp_path / name) == {}


def test_what_cannot_be_read_tells_nothing(tmp_path):
    assert read_tags(tmp_path / "missing.mp3") == {}
    assert read_tags(tmp_path) == {}


def test_tags_without_end_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("msim_tf.audio.tags._SECONDS", 0.1)
    # Without the limit, half an hour.
    assert read_tags(flac(tmp_path / "x.flac", [f"x={number:08d}" for number in range(100_000)])) == {}
    assert read_tags(flac(tmp_path / "y.flac", COMMENTS)) == EXPECTED
    assert sys.getprofile() is None


def test_files_cut_short_anywhere_tell_less_or_nothing(tmp_path):
    (tmp_path / "whole.mp3").write_bytes(id3v24() + bytes(40))
    whole = {
        "flac": flac(tmp_path / "whole.flac", COMMENTS),
        "mp3": tmp_path / "whole.mp3",
        "m4a": m4a(tmp_path / "y.m4a"),
    }
    for suffix, path in whole.items():
        data = path.read_bytes()
        full, cut = read_tags(path), tmp_path / f"cut.{suffix}"
        for length in range(0, len(data), 3):
            cut.write_bytes(data[:length])
            tags = read_tags(cut)
            assert set(tags) <= set(full)
            texts = {key: text for key, text in tags.items() if isinstance(text, str)}
            assert all(full[key].startswith(text.rstrip("\ufffd")) for key, text in texts.items())


@pytest.mark.parametrize(
    ("written", "genres"),
    [
        ("(17)Rock; Pop/Funk", ["Rock", "Pop", "Funk"]),
        ("(17)(13)", ["Rock", "Pop"]),
        ("(17)", ["Rock"]),
        ("17", ["Rock"]),
        ("(4)Eurodisco", ["Disco", "Eurodisco"]),
        ("(RX)(17)", ["Remix", "Rock"]),
        ("((Brackets)", ["(Brackets)"]),
        ("rock;Rock; ROCK", ["rock"]),
        ("Hip-Hop / Rap", ["Hip-Hop", "Rap"]),
        ("1980s", ["1980s"]),
        ("(999)", ["999"]),
    ],
)
@pytest.mark.parametrize("version", [3, 4])
def test_every_genre_of_a_text_counts_once(tmp_path, written, genres, version):
    path = tmp_path / "a.mp3"
    soundfile.write(path, [0.0] * 8000, 8000)
    path.write_bytes(id3([("TCON", written)], version=version) + path.read_bytes())
    assert read_tags(path) == {"genre": genres}


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


PLAIN = {"artist": "Björk", "album": "Post", "title": "Army of Me", "year": 1995, "genre": ["Rock", "Trip hop"]}


def encoded(path, container, codec, tags, *, rate=44100):
    """A tenth of a second of a sine in a real file of FFmpeg's, with ``tags``."""
    with av.open(str(path), "w", format=container) as file:
        file.metadata.update(tags)
        stream = file.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 128_000
        stream.codec_context.open()
        y = (0.3 * np.sin(np.arange(rate // 10) * 0.05)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(y[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, "mono", rate, context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        ("wv", "wv", "wavpack"),
        ("tta", "tta", "tta"),
        ("mka", "matroska", "flac"),
        ("mka", "matroska", "aac"),
        ("webm", "webm", "libopus"),
        ("wma", "asf", "wmav2"),
        ("m4a", "ipod", "aac"),
        ("mp3", "matroska", "flac"),  # by content, not by name
        ("flac", "wv", "wavpack"),
    ],
)
def test_tags_that_ffmpeg_wrote(tmp_path, decoder, suffix, container, codec):
    tags = {"artist": "Björk", "album": "Post", "title": "Army of Me", "date": "1995-06-13", "genre": "Rock; Trip hop"}
    rate = 48000 if codec == "libopus" else 44100
    path = encoded(tmp_path / f"x.{suffix}", container, codec, tags, rate=rate)
    assert read_tags(path, decoder.metadata) == PLAIN


def ape_tag(items, *, header=True, flags=0):
    """An APEv2 tag: items are (key, value, flags)."""
    data = b"".join(struct.pack("<II", len(value), kind) + key.encode() + b"\0" + value for key, value, kind in items)
    size = len(data) + 32
    head, foot = (
        b"APETAGEX" + struct.pack("<IIII", 2000, size, len(items), flags | place) + bytes(8)
        for place in (0xA0000000, 0x80000000)
    )
    return (head if header else b"") + data + foot


APE_ITEMS = [
    ("Cover Art (Front)", b"front.jpg\0" + bytes(range(256)), 2),
    ("Artist", "Björk\0Guest".encode(), 0),
    ("Album Artist", "Björk".encode(), 0),
    ("ALBUM", b"Post", 0),
    ("Title", b"Army of Me", 0),
    ("Year", b"1995", 0),
    ("Genre", b"Rock\0Trip hop", 1),  # read-only
]


@pytest.mark.parametrize("suffix", ["ape", "wv", "mpc", "tak", "mp3"])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(124) + b"\xff"], ids=["last", "before ID3v1"])
@pytest.mark.parametrize("header", [True, False])
def test_ape_tags_with_several_values(tmp_path, suffix, tail, header):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"MAC \x96\x0f" + bytes(500) + ape_tag(APE_ITEMS, header=header) + tail)
    assert read_tags(path) == EXPECTED


def test_an_ape_tag_adds_what_a_short_id3v1_tag_lacks(tmp_path):
    texts = (b"Army of Me", b"Bj\xf6rk", b"", b"1995")
    sizes = (30, 30, 30, 4)
    id3v1 = b"TAG" + b"".join(text.ljust(size, b"\0") for text, size in zip(texts, sizes)) + bytes(30) + b"\x11"
    (tmp_path / "x.mp3").write_bytes(bytes(500) + ape_tag(APE_ITEMS) + id3v1)
    expected = {"artist": "Björk", "album_artist": "Björk", "album": "Post", "title": "Army of Me", "year": 1995}
    assert read_tags(tmp_path / "x.mp3") == {**expected, "genre": ["Rock"]}


@pytest.mark.parametrize(
    "change",
    [
        lambda tag: tag[40:],
        lambda tag: tag[:-20] + b"\xff\xff\xff\xff" + tag[-16:],  # its size
        lambda tag: tag[:-20] + bytes(4) + tag[-16:],
        lambda tag: tag[:-16] + b"\xff\xff\xff\xff" + tag[-12:],  # its count
        lambda tag: tag[:32] + b"\xff\xff\xff\xff" + tag[36:],  # the first item's length
        lambda tag: tag[:32] + b"\xff" * (len(tag) - 64) + tag[-32:],
        lambda tag: tag[-32:],
        lambda tag: tag[-31:],
    ],
)
def test_damaged_ape_tags_are_no_error(tmp_path, change):
    (tmp_path / "x.ape").write_bytes(change(ape_tag(APE_ITEMS[1:])))
    items = read_ape_tags(tmp_path / "x.ape")
    assert all(isinstance(text, str) for texts in items.values() for text in texts)
    read_tags(tmp_path / "x.ape")


def dsf(tmp_path):
    """A DSF file of 0.1 s with its ID3v2 tag at the end, where its header says (DSF specification 1.01)."""
    tag, data = id3v24(), b"\x69" * 4096 * 9
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, 2_822_400, 1, 8 * len(data), 4096, 0)
    sound = b"data" + struct.pack("<Q", 12 + len(data)) + data
    size = 28 + len(form) + len(sound)
    head = b"DSD " + struct.pack("<QQQ", 28, size + len(tag), size)
    (tmp_path / "x.dsf").write_bytes(head + form + sound + tag)
    return tmp_path / "x.dsf"


def test_the_tag_of_a_dsf_file(tmp_path, decoder):
    tags = read_tags(dsf(tmp_path), decoder.metadata)
    assert tags["title"] == "Army of Me" and tags["album"] == "Post" and "Björk" in tags["artist"]


def test_matroska_tags_of_an_album_are_told_from_those_of_a_track():
    assert canonical_tags(
        {
            "title": "Army of Me",
            "album/title": "Post",
            "album/artist": "Björk",
            "track/artist": "Björk; Guest",
            "album/date_released": "1995-06-13",
        }
    ) == {k: EXPECTED[k] for k in ("artist", "album_artist", "album", "title", "year")}


def test_a_file_that_ffmpeg_cannot_read_or_dies_at_has_no_tags(tmp_path, decoder):
    (tmp_path / "x.mka").write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    assert read_tags(tmp_path / "x.mka", decoder.metadata) == {}
    assert read_tags(tmp_path / "missing.mka", decoder.metadata) == {}
    path = encoded(tmp_path / "good.mka", "matroska", "flac", {"title": "Army of Me"})
    assert read_tags(path, decoder.metadata) == {"title": "Army of Me"}
