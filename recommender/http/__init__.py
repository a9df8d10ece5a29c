"""The service over HTTP: routes, middleware, problem details, metrics and the cache of answers."""
