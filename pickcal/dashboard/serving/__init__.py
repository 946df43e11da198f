"""How the dashboard is served: where it listens, who may come in, and how a lost connection comes back.

Nothing here knows what the page shows. Secrets come from files or the environment, never from the command line, where
`ps` shows them to everybody on the machine.
"""
