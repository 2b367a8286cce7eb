"""What the search box reads in a text, against filters written by hand."""

import pytest

from msim_tf.library.search_words import Wording, wording
from msim_tf.search.filters import Filters

# As a library has them: one word in two spellings, a phrase whose words are tags as well.
TAGS = {"piano": 9, "Mellow": 5, "chillout": 3, "Piano": 1, "rock": 4, "Progressive rock": 2, "female vocalists": 2}


@pytest.mark.parametrize(
    "text, filters, rest",
    [
        ("calm piano under 100 bpm", Filters(bpm=(1, 100), tags=("Mellow", "piano")), ""),
        ("PIANO, rock", Filters(tags=("piano", "rock")), ""),
        ("progressive rock", Filters(tags=("Progressive rock",)), ""),
        ("woman with a piano", Filters(tags=("female vocalists", "piano")), "a"),
        ("between 90 and 120 bpm", Filters(bpm=(90, 120)), ""),
        ("120-90bpm", Filters(bpm=(90, 120)), ""),
        ("at least 99.5 BPM rock", Filters(bpm=(99.5, 1000), tags=("rock",)), ""),
        ("120 bpm", Filters(bpm=(115, 125)), ""),
        ("rock in bb minor", Filters(keys=("Bb minor",), tags=("rock",)), ""),
        ("f♯ major", Filters(keys=("F# major",)), ""),
        # Names stay names, whatever they look like.
        ("The Deep Path", Filters(), "The Deep Path"),
        ("rocket man and me", Filters(), "rocket man and me"),
        ("Opus 100", Filters(), "Opus 100"),
        ("under 0 bpm", Filters(), "under 0 bpm"),
        ("120 bpm Wesnoth", Filters(bpm=(115, 125)), "Wesnoth"),
        ("", Filters(), ""),
        ("bpm minor , -", Filters(), "bpm minor -"),
    ],
)
def test_words_become_filters_and_names_stay(text, filters, rest):
    assert wording(text, TAGS) == Wording(filters, rest)


def test_a_library_without_words_has_names_only():
    assert wording("calm piano", {}) == Wording(Filters(), "calm piano")
