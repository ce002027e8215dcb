"""Processes that take part in a run: who they are, what they are told and tell, what happens to them.

Shared by the backends whose peers really compute. How processes start, and what carries their messages, is theirs.
"""
