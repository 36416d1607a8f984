"""Storage of finished nodes: folders, atomic files, locks, cleanup, provenance. No torch."""
