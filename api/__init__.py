"""The control plane: the HTTP contract, the state of every recording, and the control side of the bus."""
