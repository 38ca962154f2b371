"""Helpers of the integration tests: processes, peers and waiting."""
