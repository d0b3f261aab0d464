"""Our bars beside the vendor's."""
