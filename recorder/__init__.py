"""The recorder: workers that record channels, the agent that runs them, and the built-in channel hub."""
