"""Builders of a free training corpus: thin scripts over ``msim_tf.corpus``, each resumable,
with a manifest of sources and licences.
"""
