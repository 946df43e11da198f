"""The dashboard: a controller that knows nothing of the web, and thin Panel views over it."""
