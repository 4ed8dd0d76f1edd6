"""config owns settings, connections, secret references and logging set-up; it imports no other package."""
