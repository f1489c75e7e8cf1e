"""Differences of records: `difference` pairs them, `significance` tests and corrects."""
