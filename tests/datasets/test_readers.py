"""Readers of public data sets, on small trees in their exact layout; expected labels are written by hand."""

import gzip

import dataset_trees as trees
import pytest

from msim_tf.datasets.catalogue import datasets
from msim_tf.datasets.collection import ReadOptions, era_of_year
from msim_tf.datasets.magnatagatune import tag_meanings
from msim_tf.datasets.reading import READERS, read_dataset, tracks_below
from msim_tf.errors import InputError

# keunwoochoi/magnatagatune-list: the columns of annotations_final.csv.
MTT_TAGS = """\
no voice, singer, duet, plucking, hard rock, world, bongos, harpsichord, female singing, clasical, sitar, chorus,
female opera, male vocal, vocals, clarinet, heavy, silence, beats, men, woodwind, funky, no strings, chimes,
foreign, no piano, horns, classical, female, no voices, soft rock, eerie, spacey, jazz, guitar, quiet, no beat,
banjo, electric, solo, violins, folk, female voice, wind, happy, ambient, new age, synth, funk, no singing, middle
eastern, trumpet, percussion, drum, airy, voice, repetitive, birds, space, strings, bass, harpsicord, medieval, male
voice, girl, keyboard, acoustic, loud, classic, string, drums, electronic, not classical, chanting, no violin, not
rock, no guitar, organ, no vocal, talking, choral, weird, opera, soprano, fast, acoustic guitar, electric guitar,
male singer, man singing, classical guitar, country, violin, electro, reggae, tribal, dark, male opera, no vocals,
irish, electronica, horn, operatic, arabic, lol, low, instrumental, trance, chant, strange, drone, synthesizer,
heavy metal, modern, disco, bells, man, deep, fast beat, industrial, hard, harp, no flute, jungle, pop, lute, female
vocal, oboe, mellow, orchestral, viola, light, echo, piano, celtic, male vocals, orchestra, eastern, old, flutes,
punk, spanish, sad, sax, slow, male, blues, vocal, indian, no singer, scary, india, woman, woman singing, rock,
dance, piano solo, guitars, no drums, jazzy, singing, cello, calm, female vocals, voices, different, techno,
clapping, house, monks, flute, not opera, not english, oriental, beat, upbeat, soft, noise, choir, female singer,
rap, metal, hip hop, quick, water, baroque, women, fiddle, english"""


def read(name, root, **options):
    by_artist = options.pop("by_artist", True)
    return read_dataset(name, root, tracks_below(root), options=ReadOptions(**options), by_artist=by_artist)


def by_stem(values):
    """The same by the last part of each path without suffix."""
    return {track.rpartition("/")[2].rpartition(".")[0]: value for track, value in values.items()}


def parts(actual):
    return {part: sorted(by_stem(dict.fromkeys(tracks))) for part, tracks in actual.split.parts.items()}


def test_every_reader_is_in_the_catalogue_and_every_labelled_set_has_one():
    assert set(READERS) == {name for name, facts in datasets().items() if set(facts.gives) != {"triplets"}}


@pytest.mark.parametrize("lies_there", trees.TREES)
def test_another_data_set_is_recognised(tmp_path, lies_there):
    trees.TREES[lies_there](tmp_path)
    title = datasets()[lies_there].title if lies_there != "fma" else "FMA small"
    for wanted in READERS:
        if wanted != lies_there:
            with pytest.raises(InputError) as error:
                read_dataset(wanted, tmp_path, tracks_below(tmp_path) if lies_there != "dim-sim" else None)
            assert str(error.value).startswith(f"{tmp_path}: this looks like ") and title in str(error.value)
            assert "\n" not in str(error.value)


def test_an_empty_root_an_archive_and_half_a_download_are_told_apart(tmp_path):
    trees.put_audio(tmp_path / "song.mp3")
    with pytest.raises(InputError, match="nothing of FMA.*expected fma_metadata/tracks.csv.*from https"):
        read("fma", tmp_path)
    trees.write(tmp_path / "fma_small.zip", "PK")
    with pytest.raises(InputError, match="nothing of FMA: .* but fma_small.zip; unpack it first"):
        read("fma", tmp_path)
    trees.write(tmp_path / "fma_small.zip.crdownload", "PK")
    with pytest.raises(InputError, match="fma_small.zip.crdownload is a download that has not ended"):
        read("fma", tmp_path)
    with pytest.raises(InputError, match="no data set 'fmaa'; there are msd"):
        read("fmaa", tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_dataset("fma", tmp_path / "nowhere", tracks_below(tmp_path))


def test_judgements_without_labels_say_where_they_go(tmp_path):
    trees.dim_sim(tmp_path)
    trees.put_audio(tmp_path / "song.mp3")
    with pytest.raises(InputError, match="give its file to msim evaluate triplets"):
        read("dim-sim", tmp_path)


def test_magnatagatune(tmp_path):
    actual = read("magnatagatune", trees.magnatagatune(tmp_path))
    assert by_stem(actual.labels.values) == {
        "a-1-1": {"genre": ("rock",), "instrument": ("no vocals",)},
        "b-2-30": {"instrument": ("female vocalists",)},
        "c-3-59": {"instrument": ("no vocals",)},
        "d-1-1": {"genre": ("rock",)},
    }
    assert by_stem(actual.labels.groups) == {"a-1-1": "Bj\xf6rn", "b-2-30": "B", "c-3-59": "C", "d-1-1": "C"}
    assert actual.left_out == {
        "no audio": ("11", "14"),
        "empty file": ("12",),
        "a web page or message saved as audio": ("13",),
        "listed twice": ("2",),
        "artist of a later part, left out of train": ("mp3/4/d-1-1.mp3",),
    }
    assert actual.faults == {"no audio", "empty file", "a web page or message saved as audio", "listed twice"}
    assert parts(actual) == {"train": ["a-1-1"], "validation": ["b-2-30"], "test": ["c-3-59"]}
    assert parts(read("magnatagatune", tmp_path, by_artist=False))["train"] == ["a-1-1", "d-1-1"]


def test_every_tag_of_magnatagatune_means_something_or_is_left_out_on_purpose():
    from msim_tf.datasets import magnatagatune
    from msim_tf.files import load_json

    left_out = [tag for tags in load_json(magnatagatune._TAGS, "tags")["left_out"].values() for tag in tags]
    tags = [tag.strip() for tag in MTT_TAGS.replace("\n", " ").split(",")]
    assert len(set(tags)) == 188 and sorted([*tag_meanings(), *left_out]) == sorted(tags)
    assert tag_meanings()["female opera"] == (("genre", "opera"), ("instrument", "female vocalists"))
    assert {tag_meanings()[tag] for tag in ("no vocals", "no singer", "no voice")} == {(("instrument", "no vocals"),)}
    assert not {"fast", "slow", "loud", "quiet", "not rock"} & set(tag_meanings())


def test_magnatagatune_broken_tables_are_one_line(tmp_path):
    root = trees.magnatagatune(tmp_path)
    whole = (root / "annotations_final.csv").read_bytes()
    (root / "annotations_final.csv").write_bytes(whole[: len(whole) - 60])
    with pytest.raises(InputError, match=r"annotations_final.csv, line \d+: .*half a download\?"):
        read("magnatagatune", root)
    (root / "annotations_final.csv").write_bytes(
        whole.replace(b'"c/b-2-30.mp3"', b'"c/b-2-30.mp3"').replace(b'"6"\t"0"', b'"6"\t"2"')
    )
    with pytest.raises(InputError, match="line 3: no voice is '2', expected 0 or 1"):
        read("magnatagatune", root)
    (root / "annotations_final.csv").unlink()
    with pytest.raises(InputError, match="no annotations_final.csv below it"):
        read("magnatagatune", root)


def test_jamendo(tmp_path):
    actual = read("jamendo", trees.jamendo(tmp_path))
    assert by_stem(actual.labels.values) == {
        "214": {"genre": ("punkrock",), "era": ("80s",)},
        "1376": {"genre": ("alternative rock",), "mood": ("film", "happy"), "instrument": ("piano",)},
        "1377.low": {"mood": ("melancholic",)},
    }
    assert by_stem(actual.labels.groups)["214"] == by_stem(actual.labels.groups)["1377.low"] == "artist_000014"
    assert actual.left_out["no audio"] == ("track_0001378",)
    assert parts(actual) == {"train": [], "validation": ["1376"], "test": ["1377.low"]}
    assert parts(read("jamendo", tmp_path, by_artist=False))["train"] == ["214"]
    without = read("jamendo", tmp_path, split_number=3)
    assert without.split is None and any("no data/splits/split-3" in note for note in without.notes)


def test_jamendo_with_the_files_of_the_subsets_only(tmp_path):
    root = trees.jamendo(tmp_path)
    (root / "data" / "autotagging.tsv").unlink()
    (root / "data" / "raw_30s_cleantags_50artists.tsv").unlink()
    rows = {row[0]: row for row in trees.JAMENDO}
    genre = "\t".join(rows["track_0001376"][:6]) + "\n"
    trees.write(root / "data" / "autotagging_genre.tsv", "TRACK_ID\tTAGS\n" + genre + genre)
    mood = "\t".join((*rows["track_0001376"][:5], "mood/theme---happy")) + "\n"
    trees.write(root / "data" / "autotagging_moodtheme.tsv", "TRACK_ID\tTAGS\n" + mood)
    actual = read("jamendo", root)
    assert by_stem(actual.labels.values) == {"1376": {"genre": ("alternative rock",), "mood": ("happy",)}}
    assert actual.left_out["listed twice"] == ("track_0001376",)
    trees.write(root / "data" / "autotagging_moodtheme.tsv", "TRACK_ID\tTAGS\n" + mood[:30])
    with pytest.raises(InputError, match="autotagging_moodtheme.tsv, line 2: 3 cells.*half a download"):
        read("jamendo", root)


def test_fma(tmp_path):
    actual = read("fma", trees.fma(tmp_path))
    assert by_stem(actual.labels.values) == {
        "000002": {"genre": ("Hip-Hop",), "era": ("00s",)},
        "000005": {"genre": ("hardcore", "indie rock", "punk", "rock"), "era": ("80s",)},
    }
    assert by_stem(actual.labels.groups) == {"000002": "1", "000005": "1", "000010": "6"}
    assert actual.left_out["no audio"] == ("000026",)
    assert parts(actual) == {"train": [], "validation": ["000010"], "test": ["000005"]}
    assert any("1 tracks have no label" in note for note in actual.notes)


def test_fma_broken_tables_are_one_line(tmp_path):
    root = trees.fma(tmp_path)
    table = root / "fma_metadata" / "tracks.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:300])
    with pytest.raises(InputError, match="half a download"):
        read("fma", root)
    table.write_bytes(whole.split(b"\n", 1)[1])
    with pytest.raises(InputError, match="tracks.csv: no column track_id, .*set.split; its 3 header rows name "):
        read("fma", root)
    table.write_bytes(whole.replace(b'"[66, 98]"', b'"[66; 98]"'))
    with pytest.raises(InputError, match=r"genres are '\[66; 98\]', expected a list of numbers"):
        read("fma", root)
    table.unlink()
    with pytest.raises(InputError, match="no tracks.csv below it; unpack fma_metadata.zip"):
        read("fma", root)


def test_fma_broken_genres_are_one_line_that_names_the_file_once(tmp_path):
    root = trees.fma(tmp_path)
    table = root / "fma_metadata" / "genres.csv"
    whole = table.read_text()
    for text, fault in (
        (whole[:50], "line 2: [1-4] cells, expected 5"),
        (whole.replace("25,1,12", "25,1,x"), "'25' of 'x'"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=fault) as error:
            read("fma", root)
        assert str(error.value).count("genres.csv") == 1


@pytest.mark.parametrize(
    "name, table",
    [
        ("fma", "fma_metadata/tracks.csv"),
        ("magnatagatune", "annotations_final.csv"),
        ("jamendo", "data/raw_30s_cleantags_50artists.tsv"),
    ],
)
def test_tables_that_are_packed_or_full_of_holes_are_one_line_and_utf_16_is_read(tmp_path, name, table):
    path = trees.TREES[name](tmp_path) / table
    whole = path.read_bytes()
    expected = read(name, tmp_path).labels
    for data, fault in (
        (gzip.compress(whole), "is packed; unpack it first"),
        (whole[: len(whole) // 2] + bytes(len(whole) // 2), "not text, it has zero bytes"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=fault):
            read(name, tmp_path)
    path.write_bytes(whole.decode().encode("utf-16"))
    assert read(name, tmp_path).labels == expected


def test_jamendo_cut_at_the_end_of_a_line_is_noticed_by_the_split(tmp_path):
    root = trees.jamendo(tmp_path)
    table = root / "data" / "raw_30s_cleantags_50artists.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    dataset = read("jamendo", root)
    reason = "in the split and not in the table; half a download?"
    assert sorted(dataset.left_out[reason]) == ["track_0001377", "track_0001378"] and reason in dataset.faults


def test_tags_in_latin_1_keep_their_letters(tmp_path):
    root = trees.jamendo(tmp_path)
    table = root / "data" / "raw_30s_cleantags_50artists.tsv"
    table.write_bytes(table.read_bytes().replace(b"punkrock", b"chans\xf3n"))
    assert by_stem(read("jamendo", root).labels.values)["214"]["genre"] == ("chans\xf3n",)


def test_gtzan_leaves_sturms_repetitions_out(tmp_path):
    actual = read("gtzan", trees.gtzan(tmp_path))
    assert by_stem(actual.labels.values) == {
        "blues.00000": {"genre": ("blues",), "tempo": ("85.53",)},
        "blues.00001": {"genre": ("blues",)},
        "jazz.00033": {"genre": ("jazz",)},
        "hiphop.00000": {"genre": ("Hip-Hop",)},
    }
    assert "jazz.00051" in actual.left_out["repetition of another excerpt (Sturm)"]
    assert actual.left_out["25 s of digital distortion (Sturm)"] == ("reggae.00086",)
    # 49 of the 1,000 are never asked for; four of the others are here.
    assert len(actual.left_out["no audio"]) == 1000 - len(actual.left_out["repetition of another excerpt (Sturm)"]) - 5
    assert [reason for reason in actual.left_out if reason.startswith("unusable tempo (tempo 'fast'")]
    assert parts(actual) == {
        "train": ["blues.00000", "hiphop.00000"],
        "validation": ["blues.00001"],
        "test": ["jazz.00033"],
    }


def test_ismir04(tmp_path):
    actual = read("ismir04", trees.ismir04(tmp_path))
    assert by_stem(actual.labels.values) == {
        "01-t": {"genre": ("classical",)},
        "02-t": {"genre": ("jazz_blues",)},
        "000001": {"genre": ("world",)},
        "03": {"genre": ("rock_pop",)},
    }
    assert by_stem(actual.labels.groups) == {"01-t": "Byron", "02-t": "Etherine", "03": "Byron"}
    assert actual.left_out["no audio"] == ("world/000002.mp3",)
    assert parts(actual) == {"train": ["02-t"], "validation": ["000001"], "test": ["03"]}
    for table in tmp_path.rglob("tracklist.csv"):
        table.unlink()
    by_folder = read("ismir04", tmp_path)
    assert by_stem(by_folder.labels.values) == by_stem(actual.labels.values) and not by_folder.labels.groups


def test_ballroom_leaves_replicas_out_and_reads_tempo(tmp_path):
    actual = read("ballroom", trees.ballroom(tmp_path))
    assert by_stem(actual.labels.values) == {
        "Albums-Secret_Garden-01": {"genre": ("waltz",), "tempo": ("87",)},
        "Albums-Latin_Jam-08": {"genre": ("rumba",)},
    }
    assert actual.left_out["repetition of another excerpt (Sturm)"] == ("Media-104705",)
    assert actual.left_out["unreadable .bpm file (IndexError)"] == ("Albums-Latin_Jam-08.bpm",)


def test_giantsteps_key_in_both_releases(tmp_path):
    actual = read("giantsteps-key", trees.giantsteps_key(tmp_path / "first"))
    assert {track: values.get("key") for track, values in by_stem(actual.labels.values).items()} == {
        "10089.LOFI": ("D major",),
        "1234749.LOFI": ("Bb major",),
        "61415.LOFI": None,
    }
    assert actual.labels.values["audio/10089.LOFI.mp3"]["genre"] == ("reggae dub",)
    assert actual.left_out["no audio"] == ("3833050.LOFI",)
    assert any(reason.startswith("unusable key (key 'E ?'") for reason in actual.left_out)
    assert len(actual.split.parts["test"]) == 3
    plus = read("giantsteps-key", trees.giantsteps_plus(tmp_path / "plus"))
    (values,) = plus.labels.values.values()
    assert values == {"genre": ("House",), "key": ("D major",)}
    (artists,) = plus.labels.groups.values()
    assert artists.split("\x1f") == ["J. Little", "Jason Sparks"]


def test_giantsteps_tempo_takes_the_second_version_where_it_is(tmp_path):
    actual = read("giantsteps-tempo", trees.giantsteps_tempo(tmp_path))
    tempi = {track: values.get("tempo") for track, values in by_stem(actual.labels.values).items()}
    assert tempi == {"28952.LOFI": ("138",), "1118326.LOFI": ("170",), "3041381.LOFI": None}
    assert actual.left_out["unreadable .jams file (JSONDecodeError)"] == ("5377710.LOFI.jams",)
    assert actual.left_out["no tempo"] == ("3041381.LOFI", "5377710.LOFI")
    for path in (tmp_path / "annotations_v2" / "jams").iterdir():
        path.unlink()
    first = read("giantsteps-tempo", tmp_path)
    assert {values["tempo"] for values in first.labels.values.values()} == {("99",)}


def test_beatport_tracks_of_several_keys_or_none_are_unknown(tmp_path):
    actual = read("beatport", trees.beatport(tmp_path))
    assert [values.get("key") for _, values in sorted(actual.labels.values.items())] == [("D minor",), None]
    assert len(actual.left_out["no single key"]) == 2
    assert "unreadable .json file (JSONDecodeError)" in actual.left_out
    assert sorted(actual.labels.groups.values()) == ["A", "Lindstrom"]


def test_audio_under_other_names_is_one_clear_line(tmp_path):
    root = trees.jamendo(tmp_path)
    for number, path in enumerate(sorted((root / "audio").rglob("*.mp3"))):
        path.rename(path.with_name(f"song{number}.mp3"))
    with pytest.raises(InputError, match="no track of jamendo gets a label among 3 .4 no audio.*names of the audio"):
        read("jamendo", root)


@pytest.mark.parametrize(
    "year, era", [(0, ""), (1926, "1920s"), (1950, "50s"), (1989, "80s"), (2000, "00s"), (2011, "10s"), (9999, "")]
)
def test_era_of_a_year(year, era):
    assert era_of_year(year) == era
