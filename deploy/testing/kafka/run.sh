#!/bin/sh
# As apache/kafka does: KAFKA_A_B=x becomes a.b=x (two underscores an underscore, three a hyphen), format, start.
set -euf
config=/opt/kafka/config/server.properties
env | grep '^KAFKA_' | grep -vE '^KAFKA_(HEAP_OPTS|OPTS|JVM_PERFORMANCE_OPTS)=' | while IFS='=' read -r name value; do
    key=$(printf %s "${name#KAFKA_}" | sed -e 's/___/-/g' -e 's/__/\x01/g' -e 's/_/./g' -e 's/\x01/_/g' | tr '[:upper:]' '[:lower:]')
    printf '%s=%s\n' "$key" "$value"
done >"$config"
java="java ${KAFKA_HEAP_OPTS:--Xmx512m} -Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml ${KAFKA_OPTS:-} -cp /opt/kafka/libs/*"
$java kafka.tools.StorageTool format --ignore-formatted -t "$CLUSTER_ID" -c "$config"
exec $java kafka.Kafka "$config"
