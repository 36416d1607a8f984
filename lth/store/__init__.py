"""Keep finished trainings: published folders, whole files, locks, cleanup, provenance. No torch."""
