"""Playlists: what is written is read back, and what other players write is understood."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from msim_tf.errors import InputError
from msim_tf.library.playlists import PathStyle, PlaylistEntry, is_playlist, playlist_text, read_playlist

AWKWARD = [
    "plain.ogg",
    "#1 hit.mp3",
    " space.ogg",
    "50% & <b>.ogg",
    "a: b.ogg",
    "new\nline.ogg",
    "ümläut/日本.flac",
    "q?a=b#c.ogg",
]


def test_extended_m3u_as_players_document_it():
    entries = [
        PlaylistEntry("/music/a.ogg", title="Title", artist="Artist", seconds=61.6),
        PlaylistEntry("b.ogg", title="Two\nlines"),
        PlaylistEntry("c/d.ogg"),
    ]
    assert playlist_text(entries, format="m3u", title="Mix") == (
        "#EXTM3U\n#PLAYLIST:Mix\n#EXTINF:62,Artist - Title\n/music/a.ogg\n#EXTINF:-1,Two lines\nb.ogg\n"
        "#EXTINF:-1,d\nc/d.ogg\n"
    )


def test_xspf_is_xml_of_its_namespace():
    text = playlist_text([PlaylistEntry("/m/ä b.ogg", "T&\x00", "A", 1.5)], format="xspf", title="Mix")
    root = ElementTree.fromstring(text.encode())
    names = {"x": "http://xspf.org/ns/0/"}
    track = root.find("x:trackList/x:track", names)
    assert root.get("version") == "1"
    assert track.find("x:location", names).text == "file:///m/%C3%A4%20b.ogg"
    assert track.find("x:title", names).text == "T&"
    assert track.find("x:duration", names).text == "1500"


@pytest.mark.parametrize("format", ["m3u", "xspf"])
@pytest.mark.parametrize("absolute", [True, False])
def test_every_name_comes_back(tmp_path, format, absolute):
    awkward = [name for name in AWKWARD if absolute or format == "xspf" or "\n" not in name]
    files = [tmp_path / "music" / name for name in awkward]
    style = PathStyle(None if absolute else tmp_path)
    playlist = tmp_path / f"list.{format}"
    text = playlist_text([PlaylistEntry(style.path(file)) for file in files], format=format)
    playlist.write_text(text, encoding="utf-8")
    assert [file.resolve() for file in read_playlist(playlist)] == [file.resolve() for file in files]


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\ud800", "\udcff", "\ufffe", "\uffff"])
def test_xspf_of_tags_that_xml_cannot_hold(character):
    entry = PlaylistEntry("/m/a.ogg", f"T{character}&", f"A{character}\U0001f3b5")
    text = playlist_text([entry], format="xspf", title=f"Mix{character}")
    root = ElementTree.fromstring(text.encode())
    assert {"Mix", "T&", "A\U0001f3b5"} <= {element.text for element in root.iter()}


def test_a_relative_name_of_two_lines_does_not_fit_m3u():
    with pytest.raises(InputError, match="write XSPF"):
        playlist_text([PlaylistEntry("new\nline.ogg")], format="m3u")


def test_a_prefix_is_replaced_by_whole_names():
    style = PathStyle(replace_prefix=("/music", "/volume1/Music/"))
    assert style.path(Path("/music/a/b.ogg")) == "/volume1/Music/a/b.ogg"
    with pytest.raises(InputError, match="/music2/a.ogg does not begin with /music"):
        style.path(Path("/music2/a.ogg"))
    with pytest.raises(InputError, match="not both"):
        PathStyle(Path("/a"), ("/b", "/c"))


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.m3u", "#EXTM3U\r\n#EXTINF:1,x\r\nsub/a.mp3\r\n\r\nhttp://radio/stream\r\n", ["sub/a.mp3"]),
        ("latin.m3u", "caf\xe9.mp3".encode("cp1252"), ["café.mp3"]),
        ("windows.m3u", "#EXTM3U\r\ncaf\xe9 \u266b.mp3\r\n".encode("utf-16"), ["café ♫.mp3"]),
        ("big_endian.m3u8", b"\xfe\xff" + "caf\xe9.mp3".encode("utf-16-be"), ["café.mp3"]),
        ("bom.m3u8", b"\xef\xbb\xbf" + "é.mp3".encode(), ["é.mp3"]),
        ("windows.m3u", "Artist\\Song.mp3", ["Artist/Song.mp3"]),
        ("uri.m3u", "file:///abs/a%20b.mp3\nfile://localhost/c.mp3\nfile://other/d.mp3", ["/abs/a b.mp3", "/c.mp3"]),
        (
            "b.pls",
            "[playlist]\nFile2=b.ogg\nFile1=/a.ogg\nTitle1=x\nLength1=3\nNumberOfEntries=2\nVersion=2",
            ["/a.ogg", "b.ogg"],
        ),
        ("c.pls", "[Playlist]\nFile1=50%.ogg\nFile1=again.ogg", ["again.ogg"]),
        (
            "numbers.pls",
            f"[playlist]\nFile10=c.ogg\nFile{'9' * 5000}=d.ogg\nFile02=b.ogg\nFile1=a.ogg\nFile\u0663=x.ogg\nFilet=y",
            ["a.ogg", "b.ogg", "c.ogg", "d.ogg"],
        ),
        (
            "latin.xspf",
            (
                '<?xml version="1.0" encoding="ISO-8859-1"?><playlist><trackList>'
                "<track><location>caf\xe9.mp3</location></track><track><location>http://[</location></track></trackList></playlist>"
            ).encode("latin-1"),
            ["café.mp3"],
        ),
    ],
)
def test_playlists_of_other_players(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_playlist(tmp_path / name) == [tmp_path / file for file in expected]


BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><playlist><trackList><track>'
    "<location>&b;</location></track></trackList></playlist>"
)


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("empty.m3u", "", "names no file"),
        ("comments.m3u", "#EXTM3U\n", "names no file"),
        ("stream.m3u", "http://[\nhttps://radio", "names no file"),
        ("audio.m3u", b"ID3\0\0", "not text"),
        ("cut.m3u", "song.mp3".encode("utf-16")[:-1], "not text"),
        ("broken.xspf", "<playlist>", "not XML"),
        ("laughs.xspf", BILLION_LAUGHS, "document type"),
        ("none.pls", "[other]\nFile1=a", "no section"),
        ("lines.pls", "File1=a", "not a PLS playlist"),
    ],
)
def test_what_is_no_playlist_is_one_line(tmp_path, name, content, reason):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_playlist(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_playlists():
    assert is_playlist("a.M3U8")
    assert is_playlist(Path("b.xspf"))
    assert not is_playlist("a.mp3")
    with pytest.raises(InputError, match="not found|cannot be read"):
        read_playlist("/nowhere/a.m3u")
