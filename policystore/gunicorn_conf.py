"""How gunicorn serves the store.

Sync workers: threads cost a third of the fetch throughput. A proxy that buffers slow clients stands in front in
production.
"""

import os

workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "sync"
timeout = 30
graceful_timeout = 15
max_requests = 0
accesslog = None
errorlog = "-"
loglevel = os.environ.get("GUNICORN_LOG_LEVEL", "warning")
