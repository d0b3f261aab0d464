"""Running it all: settings, command line, embedded broker and registry, topology, simulator,
replay, live view."""
