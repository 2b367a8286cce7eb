"""A folder of music as a searchable library that is kept up to date."""
