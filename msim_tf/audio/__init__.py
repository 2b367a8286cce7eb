"""Sound files in: found, decoded, and what their tags say."""
