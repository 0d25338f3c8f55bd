"""The only writers of job runs."""
