"""on_ray."""
