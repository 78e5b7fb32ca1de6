"""What a user can choose. Nothing here knows images or torch."""
