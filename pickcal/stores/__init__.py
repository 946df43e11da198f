"""Where projects and sources are: folders of this machine, or object stores reached through obstore."""
