#!/usr/bin/env bash
# The shipped model on the excerpts that ship with the repository: a library, queries, and the server, through the
# command line. The results lie in demo/ and are reused by the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
music=tests/data/music
model=saved_models/open6
out=${MSIM_DEMO:-demo}
track=wesnoth__the_deep_path.ogg
begun=$SECONDS

say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }

say "1/4 index: every excerpt by the shipped model"
msim index "$music" "$out/library" --model "$model"
say "2/4 query: the nearest tracks to $track, by all dimensions alike and by each alone"
msim query "$out/library" "$track" --each -k 3
say "3/4 steer: same mood and tempo, another era; the genre of one with the tempo of another; a path between them"
msim query "$out/library" "$track" -w mood=1,tempo=1,era=-0.5,genre=0,instrument=0,key=0 -k 3 --per-artist 1 --explain
msim query "$out/library" --mix "genre=$track" --mix "tempo=zaz__mus2.ogg" -k 3
msim path "$out/library" "$track" zaz__mus2.ogg --length 6
say "4/4 serve: ask every signature over gRPC and REST"
rm -f "$out/server.log"
msim serve "$model" --library "$out/library" --grpc-port 0 --rest-port 0 > "$out/server.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
until grep -q '^serving' "$out/server.log"; do kill -0 $server; sleep 0.2; done
cat "$out/server.log"
msim predict "$music/$track" --model "$(basename "$model")" \
    --grpc "$(sed -nE 's/.*gRPC ([^,]+),.*/\1/p' "$out/server.log")" \
    --rest "$(sed -nE 's/.*REST ([^ ]+) .*/\1/p' "$out/server.log")"
kill $server && wait $server || true

say "done in $((SECONDS - begun)) s"
cat <<EOF
The same in a browser, with sliders, players and a map:   .venv/bin/msim serve $model --library $out/library
With your own music:                                      .venv/bin/msim index ~/Music my/library --model $model
Train a model yourself, every stage:                      make train-demo
EOF
