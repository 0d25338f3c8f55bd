"""Compares what decides what runners get with what the history recorded.

Policies, endpoint sets, attachments, exceptions, break glasses, never-allow hosts, API keys and the blocklist are only
ever changed together with a history event. So replaying the events gives every row that should exist, and any other
row, or any other value, was written past Policy Store. The history itself is verified by its hash chain
(`policystore.audit_log.hash_chain`).
"""
