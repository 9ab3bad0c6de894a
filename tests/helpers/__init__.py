"""Shared fakes: a small source, a counting encoder, an index in memory, and a pipeline that strings them together.

Belongs here: what several test modules need. Does not belong here: tests, or anything a single module could hold.
"""
