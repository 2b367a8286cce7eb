"""The feature store, and the batches that training draws from it."""
