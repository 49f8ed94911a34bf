"""Data sets: one file per source, each giving a `Data` record."""
