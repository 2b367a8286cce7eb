"""``msim extract`` in its three steps, as a scheduler of many machines calls it."""

from click.testing import CliRunner
from synthetic import write_clip

from msim_tf.cli import cli
from msim_tf.data.store import FeatureStore
from msim_tf.errors import InputError


def test_extract_in_three_steps(tmp_path):
    music, store, jobs = str(tmp_path / "music"), str(tmp_path / "store"), tmp_path / "jobs.jsonl"
    for number in range(3):
        write_clip(tmp_path / "music" / f"{number}.wav", 4, number)
    write_clip(tmp_path / "music" / "short.wav", 0.5, 9)
    (tmp_path / "music" / ".git").mkdir()
    run = lambda *arguments, **options: CliRunner().invoke(cli, ["extract", music, store, *arguments], **options)  # noqa: E731

    planned = run("--plan", str(jobs))
    assert planned.exit_code == 0, planned.output
    assert "1 jobs to run" in planned.output and len(jobs.read_text().splitlines()) == 1
    unfinished = run("--finish")
    assert unfinished.exit_code == 1 and "4 clips are still to be extracted" in unfinished.output
    assert run("--run", "-", input=jobs.read_text()).exit_code == 0
    finished = run("--finish")
    assert finished.exit_code == 1 and "3 clips" in finished.output
    assert "left out: short.wav: 0.50 s is shorter than one segment" in finished.output
    assert FeatureStore(store).identifiers == ["0.wav", "1.wav", "2.wav"]
    again = run()
    assert again.exit_code == 1 and "left out, hidden: 1" in again.output

    wrong = run("--run", "-", input=jobs.read_text() + "{}\n")
    assert isinstance(wrong.exception, InputError) and "--run, line 2: not a job" in str(wrong.exception)
    both = run("--finish", "--plan", str(jobs))
    assert isinstance(both.exception, InputError) and "separate steps" in str(both.exception)
