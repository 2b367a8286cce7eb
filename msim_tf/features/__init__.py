"""From waveform to features to batches."""
