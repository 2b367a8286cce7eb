"""Makes tests/golden/triplet_semi_hard.npz: what tensorflow-addons says about the triplet
loss, for stacks on which it does not run.

Run it in the environment of the extra ``addons`` (TensorFlow 2.15)::

    python tools/make_golden_loss.py

Each case is a batch of random embeddings with class labels; the file keeps loss and gradient of
``tensorflow_addons.losses.TripletSemiHardLoss(distance_metric="angular")``.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from msim_tf.files import atomic_file

OUTPUT = Path(__file__).parent.parent / "tests" / "golden" / "triplet_semi_hard.npz"
CASES, BATCH, WIDTH = 12, 24, 3
MARGINS = (0.1, 0.3, 1.0)


def main() -> None:
    try:
        import tensorflow_addons as tfa
    except ImportError as error:
        sys.exit(f"tensorflow-addons cannot be imported ({error}); install the extra [addons] on Python 3.10 or 3.11")

    rng = np.random.default_rng(15)
    embeddings = rng.normal(size=(CASES, BATCH, WIDTH)).astype(np.float32)
    labels = np.stack([rng.integers(0, 2 + case % 5, size=BATCH) for case in range(CASES)]).astype(np.int32)
    margins = np.resize(np.float32(MARGINS), CASES)
    losses, gradients = [], []
    for x, y, margin in zip(embeddings, labels, margins):
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            loss = tfa.losses.TripletSemiHardLoss(margin=float(margin), distance_metric="angular")(y, variable)
        losses.append(loss.numpy())
        gradients.append(tape.gradient(loss, variable).numpy())
    if not (np.isfinite(losses).all() and np.min(losses) > 0):
        sys.exit(f"losses {losses}: expected all positive, or the cases test nothing")
    with atomic_file(OUTPUT) as file:
        np.savez(
            file,
            embeddings=embeddings,
            labels=labels,
            margins=margins,
            losses=np.float32(losses),
            gradients=np.stack(gradients),
            versions=np.array([f"tensorflow {tf.__version__}", f"tensorflow-addons {tfa.__version__}"]),
        )
    print(f"{OUTPUT}: {CASES} cases, losses {np.min(losses):.3f} to {np.max(losses):.3f}")


if __name__ == "__main__":
    main()
