"""The only writers of Policy, Attachment and HistoryEvent: one verb a change, its history in the same transaction."""
