"""``msim evaluate``: triplets, embed, table1, baselines, report."""

from __future__ import annotations

from pathlib import Path

import click

from msim_tf.cli.evaluate_input import agreement_option, clips_option, load_system, metric_option, read_judgements
from msim_tf.cli.evaluate_output import (
    print_ceiling,
    print_clustered,
    print_dimensions,
    print_dropped,
    print_pairs,
)
from msim_tf.cli.evaluate_studies import baselines, report, table1
from msim_tf.cli.options import LocalPath, import_tensorflow, parse_weights, printable, progress_bar
from msim_tf.errors import InputError

_PATH = LocalPath(path_type=Path)
_SHOWN = 10


@click.group()
def evaluate() -> None:
    """Score embeddings on triplets and labels, with intervals and tests.

    Any system takes part with an .npz of identifiers and embeddings. With Dim-Sim's file and its audio in a folder:

    \b
        msim evaluate embed dim-sim.csv audio --model saved_models/NAME --out name.npz
        msim evaluate triplets dim-sim.csv name.npz other.npz --out results
    """


@evaluate.command(short_help="Score systems on triplets: human judgements or your own.")
@click.argument("file", metavar="TRIPLETS", type=_PATH)
@click.argument("embeddings", nargs=-1, required=True)
@agreement_option
@metric_option
@clips_option
@click.option(
    "-w", "--weight", "weights", multiple=True, help="DIMENSION=NUMBER, repeatable; a dimension not named weighs 0."
)
@click.option("--baseline", help="System that the others are compared with; default the last.")
@click.option("--out", type=_PATH, help="Folder for Table 1, Table 2 and Kiviat diagram.")
def triplets(
    file: Path,
    embeddings: tuple[str, ...],
    agreement: float,
    metric: str,
    clips: bool,
    weights: tuple[str, ...],
    baseline: str | None,
    out: Path | None,
) -> None:
    """Score each of EMBEDDINGS (FILE.npz or NAME=FILE.npz) on judgements of people.

    TRIPLETS is Dim-Sim's or MagnaTagATune's file, or a table (comma or tab) with the columns

    \b
        anchor,positive,negative     one outcome per row; with "rater", votes that are added up
        clip1_id,clip2_id,clip3_id,odd    which of three is the odd one
        query,candidate,rating       more is more similar; with "rater", compared within each
        a,b,c,d,closer               "ab" or "cd"; or votes_ab,votes_cd
        x,a,b,answer                 ABX: "a" or "b"; or votes_a,votes_b

    Prints scores with their N and intervals that count triplets, whole queries and clips; the human
    ceiling, where there are votes; every dimension alone; what was dropped and why; and tests between any
    two systems. All systems are scored on the same triplets.
    """
    from msim_tf.evaluate.comparison import pairs_table, write_comparison
    from msim_tf.evaluate.tables import system_facts
    from msim_tf.evaluate.triplet_scores import in_words_of, score_systems

    if weights and out:
        raise InputError(
            "--out writes every subset of the dimensions, which leaves nothing to weigh; give --weight without it"
        )
    # All systems are scored on the triplets that all of them have vectors for.
    chosen, dropped = read_judgements(file, agreement=agreement, clips=clips)
    systems = [in_words_of(chosen, load_system(text)) for text in embeddings]
    results = score_systems(chosen, systems, metric=metric, weights=parse_weights(weights) or None)
    baseline = baseline or results[-1].name
    if baseline not in {result.name for result in results}:
        raise InputError(f"--baseline {baseline}: expected one of {', '.join(result.name for result in results)}")
    # On the terminal: what was left out, then score by score, then differences between systems.
    print_dropped(dropped + results[0].dropped)
    for result, system in zip(results, systems):
        click.echo(result.lines()[0])
        print_clustered("  ", result.correct, result.triplets)
        if system.layout is not None and not weights:
            print_dimensions(result, system)
    print_ceiling(results[0].triplets)
    if len(results) > 1:
        print_pairs(pairs_table(results))
    if out is None:
        return
    facts = {system.name: system_facts(system) for system in systems}
    write_comparison(out, results, systems, baseline=baseline, facts=facts, notes=dropped.lines(shown=_SHOWN))
    click.echo(f"{out / 'table1.md'}, and beside it the other tables and diagrams")


@evaluate.command(short_help="Embed what a triplet file needs.")
@click.argument("file", metavar="TRIPLETS", type=_PATH)
@click.argument("audio", type=_PATH)
@click.option(
    "--model",
    type=_PATH,
    help="Exported model: saved_models/NAME or one of its versions; by default the one that msim carries.",
)
@click.option("--out", type=_PATH, required=True, help="The .npz file to write.")
@clips_option
@click.pass_context
def embed(ctx: click.Context, file: Path, audio: Path, model: Path | None, out: Path, clips: bool) -> None:
    """Embed what TRIPLETS need from the folder AUDIO, where a track ID is the file ID.mp3 (or another suffix).

    A clip is cut from the features of its whole track, as in training, since a tempogram needs seconds of context.
    Tracks without audio are listed, and the exit status is then 1.
    """
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: expected a name that ends in .npz")
    chosen, _ = read_judgements(file, agreement=None, clips=clips)
    import_tensorflow()
    from msim_tf import settings
    from msim_tf.embeddings import save_embeddings
    from msim_tf.evaluate.studies.clips import embed_triplets
    from msim_tf.export.embedder import Embedder

    embedder = Embedder(model or settings.default_model())
    with progress_bar("embed") as progress:
        identifiers, vectors, failures = embed_triplets(embedder, chosen, audio, progress=progress)
    metadata = embedder.metadata
    meta = {"model": metadata.name, "version": metadata.directory.name, "digest": metadata.features.digest}
    save_embeddings(out, identifiers=identifiers, embeddings=vectors, layout=metadata.layout, meta=meta)
    click.echo(f"{out}: {len(identifiers)} {'clips' if clips else 'tracks'}, {metadata.layout.size} coordinates")
    # One line for each reason, with all tracks that it concerns.
    for reason in dict.fromkeys(failures.values()):
        names = [name for name, why in failures.items() if why == reason]
        click.echo(f"  left out {len(names)}: {reason}: {printable(' '.join(names))}", err=True)
    if failures:
        ctx.exit(1)


for _command in (table1, baselines, report):
    evaluate.add_command(_command)
