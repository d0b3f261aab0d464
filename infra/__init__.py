"""Running it all: settings, command line, embedded broker and registry, topology, simulator, replay, live view."""

import processors as processors  # ends the start where another package named `schemas` is found first
