"""The sandbox: one local server that imitates the providers and shows the messages it gets."""
