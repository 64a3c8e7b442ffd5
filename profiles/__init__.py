"""Who: profiles unified from every identifier, addresses, consent, events; conditions over them."""
