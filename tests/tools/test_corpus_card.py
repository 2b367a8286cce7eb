"""The tables of a model card: every figure where its head says, aims met or not, and nothing that was not measured."""

import json

import pytest

from msim_tf.dimensions import DIMENSION_NAMES, TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from tools.corpus import card


def cell(accuracy, anchors=7):
    return {"accuracy": accuracy, "low": accuracy - 0.1, "high": min(1.0, accuracy + 0.0504), "anchors": anchors}


def layered(own, other):
    """Kinds of a system with subspaces: ``own`` in the kind's own subspace, ``other`` elsewhere."""
    kinds = (
        *DIMENSION_NAMES,
        "genre (exact)",
        "tempo (stretched)",
        *(f"{n} (same package)" for n in TAG_DIMENSION_NAMES),
    )
    return {
        kind: {name: cell(own if name == kind.split(" ")[0] else other) for name in (*DIMENSION_NAMES, "all")}
        for kind in kinds
    }


@pytest.fixture
def judged():
    flat = {kind: {"all": cell(0.4444)} for kind in layered(0, 0)}
    return {"ours": layered(0.93, 0.6), "mfcc": flat, "not in a card": flat}


def test_every_figure_stands_where_its_head_says(judged):
    compared, looser, matrix = card.tables(judged, "ours")
    assert compared[0] == "| kind | judged by | ours, own subspace | MFCC statistics | we aimed at |"
    assert compared[1] == "|---|---|---|---|---|"
    assert compared[2] == "| genre | teacher, 7 anchors | **.930** (.830-.980) | .444 | .95, missed |"
    assert "| tempo | exact, 7 anchors | **.930** (.830-.980) | .444 | .96, missed |" in compared
    assert "| tempo, stretched | exact, 7 triplets | **.930** (.830-.980) | .444 | .85 |" in compared
    assert compared[-1] == "| genre of renders | exact, 7 anchors | **.930** (.830-.980) | .444 |  |"
    assert [line.split(" | ")[0] for line in looser[2:]] == [f"| {name}, same package" for name in TAG_DIMENSION_NAMES]
    assert looser[2].endswith("| .95, missed |")
    assert matrix[0] == "|  | genre | mood | instrument | era | tempo | key |"
    assert matrix[-1] == "| key | .600 | .600 | .600 | .600 | .600 | **.930** |"


def test_what_was_not_measured_is_a_dash(judged):
    del judged["mfcc"]["genre"], judged["ours"]["key"]["tempo"]
    compared, _, matrix = card.tables(judged, "ours")
    assert compared[2] == "| genre | teacher, 7 anchors | **.930** (.830-.980) | - | .95, missed |"
    assert matrix[-1] == "| key | .600 | .600 | .600 | .600 | - | **.930** |"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.9184, ".918"), (1.0, "1.0"), (0.99951, "1.0"), (0.05, ".050"), (None, "-"), (float("nan"), "-")],
)
def test_shares_have_three_decimals(share, text):
    assert card.figure(share) == text


def test_the_program_prints_them_and_names_what_was_not_judged(judged, tmp_path, monkeypatch, capsys):
    path = tmp_path / "judged.json"
    path.write_text(json.dumps(judged))
    monkeypatch.setattr("sys.argv", ["card", "--judged", str(path), "--model", "ours"])
    assert card.main() == 0
    printed = capsys.readouterr().out.split("\n\n")
    assert [text.strip().splitlines() for text in printed] == card.tables(judged, "ours")
    with pytest.raises(InputError, match="no figures of 'open6', only of ours, mfcc"):
        card.tables(judged, "open6")
