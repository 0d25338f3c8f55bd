"""gunicorn's own way of reading each request, with the store's answers to what it cannot read."""

from gunicorn.workers.sync import SyncWorker

from policystore.gunicorn_worker import FetchWorker


class PlainWorker(FetchWorker):
    """Takes no short way."""

    handle = SyncWorker.handle
