#!/usr/bin/env bash
# Makes saved_models/open6 from nothing: a free corpus, its labels, the training and the evaluation. A step that was
# interrupted continues when the script is run again. It takes some 22 GB of disk and, on two cores, two hours: half of
# them for the corpus, its labels and features. It needs Debian with:
#     apt-get install mma fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont \
#         rubberband-cli openmpt123
set -euo pipefail
cd "$(dirname "$0")/.."
corpus=${1:?"usage: tools/train_open6.sh FOLDER"}
python=${PYTHON:-.venv/bin/python}
msim=$(dirname "$python")/msim
part() { "$python" -m "tools.corpus.$1" --corpus "$corpus" "${@:2}"; }
networks=(${NETWORKS:-MSD_musicnn MTT_musicnn}) # MSD_musicnn alone taught version 3, without recordings and voices
teacher() { part teacher --weights "${networks[@]/#/$corpus/musicnn/musicnn/}" "$@"; }

mkdir -p "$corpus"
"$python" -m pip install --quiet music21 pyworld
[ -d "$corpus/musicnn" ] || "$python" -m pip install --quiet --no-deps --target "$corpus/musicnn" musicnn

"$python" -m tools.corpus.games --corpus "$corpus" & games=$!
trap 'kill $games 2> /dev/null || true; wait' EXIT
part renders --clips 1200
part scores
mirror=(${MIRROR:+--mirror "$MIRROR"}) # a folder that holds the recordings; else they are fetched
part recordings "${mirror[@]}"
wait $games || [ $? = 3 ] # 3: a package is gone from the archive; the rest is built
trap - EXIT
part stretched --parts test
part mixes --count 4000
part voices --count 2000 "${mirror[@]}"
heard=(--part train --builders games recordings renders scores mixes voices)
teacher "${heard[@]}"
part voices_kept --drop && teacher "${heard[@]}" # forgets the mixes in which no voice is heard
teacher --part test --builders games recordings renders scores stretched
for which in train test; do
    "$msim" extract "$corpus/$which" "$corpus/store-$which"
    "$msim" label "$corpus/store-$which" "$corpus"/*-labels-$which.csv "$corpus/teacher-$which-tags.npz" \
        "$corpus/teacher-$which-passages.npz"
done
"$msim" train "$corpus/store-train" "$corpus/run" --preset open6
"$msim" export "$corpus/run" "$corpus/store-train" "$corpus/saved_models/open6"
part baselines --train "$corpus/store-train" --test "$corpus/store-test"
part judge --store "$corpus/store-test" --json "$corpus/judged.json" open6="$corpus/run" \
    musicnn="$corpus/teacher-test-penultimate.npz" musicnn-tags="$corpus/teacher-test-tags.npz" \
    mfcc="$corpus/mfcc.npz" ridge="$corpus/ridge.npz"
"$python" -m tools.corpus.card --judged "$corpus/judged.json"
