"""Alembic's scripts; `api.store` runs them at start."""
