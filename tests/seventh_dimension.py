"""Run by test_seventh_dimension.py with MSIM_DIMENSIONS=danceability: a seventh dimension from labels to slider."""

import sys
from pathlib import Path

import httpx
import numpy as np
from synthetic import SMALL, some_labels

from msim_tf.cli import cli
from msim_tf.data.store import FeatureStore
from msim_tf.data.writer import extract_folder
from msim_tf.export.servable import Servable
from msim_tf.library.api import library_site
from msim_tf.model.network import build_network
from msim_tf.model.params import NetworkParams
from msim_tf.serving.server import ServerOptions, running_server

clips, out = map(Path, sys.argv[1:])


def msim(command):
    cli.main(command.split(), standalone_mode=False)


# Labels of all seven: a row of the table names its dimension.
extract_folder(clips, out / "store", SMALL)
labels = some_labels(FeatureStore(out / "store").identifiers).values
rows = [f"{track},{name},{value[0]}" for track, known in labels.items() for name, value in known.items()]
rows += [f"{track},danceability,{('high', 'low')[place % 3 == 0]}" for place, track in enumerate(labels)]
(out / "labels.csv").write_text("\n".join(["track,dimension,value", *rows]))
msim(f"label {out}/store {out}/labels.csv")

# Training, export, the signature through the server's own loader. One input, because three take long to trace.
small = "--network single384 --width 0.03 --epochs 2 --steps-per-epoch 2 --batch-size 8 --validation 0.25"
msim(f"train {out}/store {out}/run {small}")
msim(f"export {out}/run {out}/store {out}/models/seven")
rng = np.random.default_rng(7)
inputs = {name: rng.random((1, *shape), np.float32) for name, shape in SMALL.input_shapes.items()}
servable = Servable.load(out / "models" / "seven" / "1")
whole, alone = (servable.run(name, {"mel": inputs["mel"]}) for name in ("serving_default", "danceability"))
np.testing.assert_allclose(alone["danceability"], whole["embedding"][:, 6 * 64 :], atol=1e-6)

# Tempo and key keep their heads, which see their own input only. The new dimension is projected from the backbone.
model = build_network(NetworkParams(width=0.03, time_averaged_heads=True), SMALL)
for changed, moved in {"onset": ["tempo"], "cens": ["key"], "mel": []}.items():
    before, after = model(inputs), model({**inputs, changed: inputs[changed] ** 3})
    unit = {name: [np.array(x[name] / np.linalg.norm(x[name])) for x in (before, after)] for name in before}
    distances = {name: float(np.abs(a - b).max()) for name, (a, b) in unit.items()}
    assert [name for name in ("tempo", "key") if distances[name] > 1e-5] == moved, (changed, distances)
    assert distances["danceability"] > 1e-5, (changed, distances)

# A library, its dimensions (a slider each) and a query by the new one alone.
msim(f"index {clips} {out}/library --model {out}/models/seven")
site = library_site(out / "library")
with running_server({"seven": out / "models" / "seven"}, ServerOptions(grpc_port=0, rest_port=0), site) as addresses:
    api = httpx.Client(base_url=f"{addresses.rest}/api/v1", timeout=60, trust_env=False)
    dimensions = api.get("/library").json()["dimensions"]
    assert dimensions == ["genre", "mood", "instrument", "era", "tempo", "key", "danceability"]
    query = {"query": {"track": next(iter(labels))}, "weights": {"danceability": 1}}
    hits = api.post("/similar", json=query).json()["hits"]
    assert hits and all(hit["distances"]["danceability"] >= 0 for hit in hits)
