"""Apache Kafka, over either client."""
