#!/usr/bin/env bash
# How saved_models/open6 was made, from nothing: a free corpus, its labels, the training and the judgement. Every step goes on where it was
# interrupted. Debian with:  apt-get install mma fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont rubberband-cli openmpt123
# It takes some 20 GB of disk and, on two cores, an hour and a half for the corpus and an hour for the training.
set -euo pipefail
cd "$(dirname "$0")/.."
corpus=${1:?"usage: tools/train_open6.sh FOLDER"}
python=${PYTHON:-.venv/bin/python}
msim=$(dirname "$python")/msim
part() { "$python" -m "tools.corpus.$1" --corpus "$corpus" "${@:2}"; }

"$python" -m pip install --quiet music21
[ -d "$corpus/musicnn" ] || "$python" -m pip install --quiet --no-deps --target "$corpus/musicnn" musicnn

part games
part renders --clips 1200
part scores
part stretched --parts test
part teacher --weights "$corpus/musicnn/musicnn/MSD_musicnn" --part train --segments 5 --builders games renders scores
part teacher --weights "$corpus/musicnn/musicnn/MSD_musicnn" --part test --segments 5 --builders games renders scores stretched
for which in train test; do
    "$msim" extract "$corpus/$which" "$corpus/store-$which"
    "$msim" label "$corpus/store-$which" "$corpus"/*-labels-$which.csv "$corpus/teacher-$which-tags.npz" \
        "$corpus/teacher-$which-penultimate.npz"
done
"$msim" train "$corpus/store-train" "$corpus/run" --preset open6
"$msim" export "$corpus/run" "$corpus/store-train" "$corpus/saved_models/open6"
part baselines --train "$corpus/store-train" --test "$corpus/store-test"
part judge --store "$corpus/store-test" --json "$corpus/judged.json" open6="$corpus/run" \
    musicnn="$corpus/teacher-test-penultimate.npz" musicnn-tags="$corpus/teacher-test-tags.npz" \
    mfcc="$corpus/mfcc.npz" ridge="$corpus/ridge.npz"
