"""What is known of tracks: labels, and how they relate two tracks."""
