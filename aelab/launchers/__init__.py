"""How the jobs of a sweep are run: each launcher takes them from an iterator and gives their outcomes."""
