"""The drawn world: people made of polygons, and the small networks that learned to draw them (docs/evidence.md)."""
