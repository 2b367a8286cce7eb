#!/usr/bin/env bash
# Every stage from a folder of music to a served model, on the excerpts that ship with the repository, through the
# command line. The results lie in demo/train/ and are reused by the next run; remove the folder to start afresh.
set -euo pipefail
cd "$(dirname "$0")/.."
music=tests/data/music
out=${MSIM_DEMO:-demo}/train
track=wesnoth__northerners.ogg
begun=$SECONDS

say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }

say "1/7 extract: mel-spectrogram, onset envelope, chroma of every excerpt"
msim extract "$music" "$out/store"
say "2/7 annotate: tempo and key by madmom"
msim annotate "$music" "$out/store"
say "3/7 label: a small table of what is known of these excerpts (era is not)"
msim label "$out/store" "$music/labels.csv"
epochs=${MSIM_DEMO_EPOCHS:-20}
say "4/7 train: the small preset, $epochs epochs"
msim train "$out/store" "$out/run" --preset small --epochs "$epochs" --allow-unlabelled
say "5/7 export: one SavedModel with a signature per dimension"
[ -d "$out/saved_models/demo/1" ] || msim export "$out/run" "$out/store" "$out/saved_models/demo"
say "6/7 serve: ask every signature over gRPC and REST"
rm -f "$out/server.log"
msim serve "$out/saved_models/demo" --grpc-port 0 --rest-port 0 > "$out/server.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
until grep -q '^serving' "$out/server.log"; do kill -0 $server; sleep 0.2; done
cat "$out/server.log"
msim predict "$music/$track" --model demo \
    --grpc "$(sed -nE 's/.*gRPC ([^,]+),.*/\1/p' "$out/server.log")" \
    --rest "$(sed -nE 's/.*REST ([^ ]+) .*/\1/p' "$out/server.log")"
kill $server && wait $server || true
say "7/7 embed and query: the nearest tracks to $track"
msim embed "$out/store" --model "$out/saved_models/demo" --out "$out/demo.npz"
[ -d "$out/library" ] || msim import "$out/demo.npz" "$out/library"
msim query "$out/library" "$track" --each -k 3

say "done in $((SECONDS - begun)) s"
cat <<EOF
TensorBoard logs: $out/run/tensorboard   (look: .venv/bin/tensorboard --logdir $out/run/tensorboard)
exported model:   $out/saved_models/demo/1
Thirty-six excerpts teach a network little: this shows that every stage works. For what a trained model can do, run
make demo with saved_models/open6.
Next, with your own music:  .venv/bin/msim extract ~/Music my/store && .venv/bin/msim annotate ~/Music my/store
EOF
