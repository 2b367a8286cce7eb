"""Profiles by name: each is answered as its weights are, in Python and on the command line."""

import json

import numpy as np
import pytest
from commands import msim

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError
from msim_tf.library.library import Library
from msim_tf.search.profiles import PROFILES, named_weights, offered


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    vectors = np.random.default_rng(3).normal(size=(40, 24)).astype(np.float32)
    names = tuple(f"{number}.ogg" for number in range(40))
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 24)
    save_embeddings(folder / "a.npz", identifiers=names, embeddings=vectors, layout=layout)
    assert msim("import", folder / "a.npz", folder / "library")[0] == 0
    return folder / "library"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_name_is_answered_as_its_weights(library, profile):
    opened = Library(library)
    by_hand = opened.similar("0.ogg", k=5, **profile.weights)
    assert list(opened.similar("0.ogg", k=5, profile=profile.name)) == list(by_hand)
    status, output, _ = msim("query", library, "0.ogg", "--profile", profile.name, "-k", 5, "--format", "json")
    printed = [hit["identifier"] for hit in json.loads(output)["overall"]]
    assert status == 0 and printed == [hit.track for hit in by_hand]


def test_mixes_and_paths_take_a_name_too(library):
    opened = Library(library)
    parts, feel = {"mood": "0.ogg", "genre": "1.ogg", "instrument": "2.ogg", "era": "3.ogg"}, named_weights("feel")
    assert list(opened.mix(parts, k=5, profile="feel")) == list(opened.mix(parts, k=5, **feel))
    by_name, by_hand = (opened.path("0.ogg", "1.ogg", length=4, **how) for how in ({"profile": "feel"}, feel))
    assert list(by_name) == list(by_hand) and len(by_name) == 4


def test_a_profile_and_weights_exclude_each_other(library):
    opened = Library(library)
    requests = (
        lambda **how: opened.similar("0.ogg", **how),
        lambda **how: opened.mix({"mood": "0.ogg"}, **how),
        lambda **how: opened.path("0.ogg", "1.ogg", **how),
    )
    for ask in requests:
        with pytest.raises(InputError, match="profile 'feel' and weights both"):
            ask(profile="feel", mood=1)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="no profile 'fell': expected one of everything, other-era, other-genre"):
        named_weights("fell")


def test_only_what_a_library_can_answer_is_offered():
    assert [profile.name for profile in offered(["mood", "tempo"])] == ["everything", "mood"]
    assert offered(DIMENSION_NAMES) == list(PROFILES)
