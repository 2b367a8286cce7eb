"""The frame of the fuzz stage: cases depend on seed, target and number only, and what goes wrong is seen."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from fuzz.cases import Target, run_target
from fuzz.mutation import DAMAGES, damaged

HANG = """
import sys, time
from pathlib import Path
from fuzz.cases import Target, run_target
target = Target(lambda shared, stack: lambda case: time.sleep(60), share=1, longest=0.5)
run_target("hang", target, seed=1, seconds=1, only=None, out=Path(sys.argv[1]))
"""

FAILURE = """
import sys, time
from pathlib import Path
from fuzz.cases import Target, run_target
target = Target(lambda shared, stack: lambda case: 1 / 0, share=1, longest=0.5)
try:
    run_target("failure", target, seed=1, seconds=1, only=None, out=Path(sys.argv[1]))
except ZeroDivisionError:
    time.sleep(1.5)
    print("still here")
"""


def run_script(script, out):
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""}
    command = [sys.executable, "-c", script, str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)


def drawing(drawn):
    """A target whose cases note what their generator gives."""

    def run(case):
        drawn[case.number] = case.random.random()
        (case.folder / "file").write_text("x")
        return Counter(draws=1)

    return Target(lambda shared, stack: run, share=1, longest=60)


def test_a_case_depends_on_seed_target_and_number(tmp_path):
    first, again, other, alone = {}, {}, {}, {}
    for place, (name, seed, drawn) in enumerate([("a", 1, first), ("a", 1, again), ("a", 2, other)]):
        counts = run_target(name, drawing(drawn), seed=seed, seconds=0.2, only=None, out=tmp_path / str(place))
        assert counts == {"cases": len(drawn), "draws": len(drawn)} and len(drawn) > 2
    both = first.keys() & again.keys()
    assert [first[number] for number in both] == [again[number] for number in both]
    assert first[0] != first[1] and first[0] != other[0]
    run_target("a", drawing(alone), seed=1, seconds=5, only=2, out=tmp_path / "alone")
    assert alone == {2: first[2]}
    assert not list(tmp_path.glob("*/case-*"))  # cases that passed leave nothing


def test_a_failed_case_is_named_and_stays(tmp_path):
    def run(case):
        (case.folder / "input").write_bytes(b"x")
        assert case.number < 3, "the third"
        return Counter()

    target = Target(lambda shared, stack: run, share=1, longest=60)
    with pytest.raises(AssertionError, match="the third"):
        run_target("a", target, seed=1, seconds=60, only=None, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "state.json").read_text()) == {"case": 3}
    assert (tmp_path / "out" / "case-3" / "input").exists()


def test_a_case_that_hangs_ends_the_process(tmp_path):
    done = run_script(HANG, tmp_path / "out")
    assert done.returncode != 0 and "Timeout" in done.stderr


def test_a_case_that_fails_does_not_end_the_process_later(tmp_path):
    done = run_script(FAILURE, tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_every_kind_of_damage_changes_something(damage):
    data = bytes(range(1, 256)) * 8
    results = [damage(data, Random(seed)) for seed in range(20)]
    assert all(result != data for result in results) and len(set(results)) > 5
    assert damage(data, Random(3)) == results[3]


def test_damage_takes_the_smallest_file():
    for seed in range(500):
        assert damaged(b"\x01", Random(seed))
