"""Embeddings of OpenL3 (Cramer et al., ICASSP 2019), the paper's second baseline, when
the package and its weights are there.

    python tools/openl3_embeddings.py --audio FOLDER --out openl3.npz

``pip install openl3`` downloads its weights while it installs; without network, or on a Python it does not build for,
there are none, and this script says so in one line. Writes the npz that ``msim evaluate`` reads: one vector of 512 per
file, the mean over the whole file (paper, section 4.2), music model on 256 mel bands.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.audio.decode import load_clip
from msim_tf.audio.scan import scan_folder
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError

SR = 48000
SIZE = 512


def load_openl3() -> tuple[Any, Any]:
    """The package and its music model.

    Raises:
        InputError: if either is missing, in one line.
    """
    try:
        import openl3
    except ImportError as error:
        raise InputError(
            f"openl3 is not installed ({error}): pip install openl3 (its installation downloads the weights)"
        ) from None
    try:
        model = openl3.models.load_audio_embedding_model(input_repr="mel256", content_type="music", embedding_size=SIZE)
    except (OSError, ValueError, ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"openl3 is installed, its weights are missing or do not load ({error}): reinstall it with network access"
        ) from None
    return openl3, model


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--audio", type=Path, required=True, help="folder of sound, or one file")
    parser.add_argument("--out", type=Path, required=True, help="the npz to write")
    arguments = parser.parse_args()
    openl3, model = load_openl3()
    scan = scan_folder(arguments.audio)
    kept, vectors = [], []
    for identifier in scan.files:
        try:
            y = load_clip(scan.root / identifier, sr=SR)
        except InputError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        frames, _ = openl3.get_audio_embedding(y, SR, model=model, hop_size=0.5, verbose=False)
        kept.append(identifier)
        vectors.append(np.asarray(frames).mean(axis=0))
    if not kept:
        raise InputError(f"{arguments.audio}: no file could be read")
    save_embeddings(
        arguments.out,
        identifiers=kept,
        embeddings=np.stack(vectors),
        meta={"name": "OpenL3", "model": f"music, mel256, {SIZE}"},
    )
    print(f"{arguments.out}: {len(kept)} tracks, {len(scan.files) - len(kept)} skipped")
    return 0 if len(kept) == len(scan.files) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
