"""Finds out, step by step, why a board does not answer or answers wrongly: ``examine(...)`` gives a :class:`Report`."""
