"""Numbers from images and tables: regional means, image similarity, and agreement."""
