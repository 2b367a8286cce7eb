"""What is known of the music: decoding, labels, relations."""
