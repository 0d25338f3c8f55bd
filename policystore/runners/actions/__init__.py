"""The only writers of job runs and last fetches."""
