"""Settings of a user. Nothing here knows images or torch."""
