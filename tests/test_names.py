"""Spellings that are one artist, and names that survive the screen."""

import unicodedata

import pytest

from msim_tf.names import comparable, comparable_artist, printable, unprintable


@pytest.mark.parametrize(
    "spelling",
    [
        "Beyoncé",
        unicodedata.normalize("NFD", "Beyoncé"),
        "BEYONCÉ",
        " Beyoncé  ",
        "Beyon\u200bcé",
        "Beyoncé feat. Jay-Z",
        "Beyoncé ft. Jay-Z",
        "Beyoncé Featuring Jay-Z",
        "Beyoncé (feat. Jay-Z)",
        "Beyoncé [ft Jay-Z]",
        "Beyoncé; Jay-Z",
        "Beyoncé;Jay-Z",
        "Beyoncé / Jay-Z",
        "Beyoncé/Jay-Z feat. Kanye West",
    ],
)
def test_spellings_of_one_artist_are_equal(spelling):
    assert comparable_artist(spelling) == "beyoncé"


def test_other_names_stay_themselves():
    whole = ["AC/DC", "Earth, Wind & Fire", "Simon & Garfunkel", "The Featherlights", "Daft Punk", "Ft. Knox", ";", ""]
    keys = [comparable_artist(name) for name in whole]
    assert keys == [name.casefold() for name in whole]
    assert comparable_artist("AC/DC; Bon Scott") == "ac/dc"
    assert comparable("Straße") == comparable("STRASSE")


@pytest.mark.parametrize(
    "name",
    [
        "a\u200bb",
        "zero\u200djoin",
        "tab\tand\nline\r",
        "\x1b[31mred",
        "\u202egpj.exe",
        "\udcff.mp3",
        "é\u0301",
        "\U000e0041",
    ],
)
def test_what_is_printed_pastes_back(name):
    shown = printable(name)
    assert unprintable(shown) == name
    assert not any(character in shown for character in "\x1b\n\t\u202e\udcff")
    shown.encode()


def test_zero_width_characters_are_shown_as_they_are():
    assert printable("a\u200bb\ufeff") == "a\u200bb\ufeff"
