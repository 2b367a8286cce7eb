"""Public data sets of the field, read from their own files: labels, artists and published splits, in our words."""
