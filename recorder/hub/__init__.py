"""The channel hub: a small SFU for demos, tests and small rooms. WHIP in, WHEP out, a roster over WebSocket.

Encoded media passes through; nothing is decoded, and no codec is special.
"""
