"""The staff site: pages for people of the company, rendered on the server, without JavaScript."""
