"""The fault matrix of the service, run by `make chaos`. `*_rows.py` hold the cases; samples of them run in tests/e2e too."""
