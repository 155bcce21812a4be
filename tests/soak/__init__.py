"""Long runs: what a recording and a hub keep when many people come and go, and when nine stay for long."""
