"""The agent: one per node. Starts and supervises workers, uploads what they commit, tells the control plane.

Decodes no media and has no database.
"""
