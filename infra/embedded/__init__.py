"""A real Apache Kafka and a real Apicurio Registry on loopback, for one machine; not for a
cluster."""
