"""After a restored database: notice it, pause, acknowledge what is lost."""
