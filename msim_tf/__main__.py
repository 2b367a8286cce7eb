"""``python -m msim_tf`` is the ``msim`` program."""

from msim_tf.cli import main

main()
