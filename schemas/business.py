"""The vendor's businesses, one of which a connection carries."""

BUSINESSES = ("stock", "crypto", "common", "japan", "india", "korea", "taiwan")
