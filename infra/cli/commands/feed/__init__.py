"""Commands that bring frames in: from the vendor, a recording, a simulator."""
