#!/usr/bin/env bash
# Makes what deploy/compose/secure.yml needs, in deploy/secrets: an authority, Kafka's certificate (for the names kafka and localhost),
# a password. Existing files are kept; delete them to make everything again. Needs openssl.
set -euo pipefail
umask 022 # containers run under other users; the folder keeps everybody else out
cd "$(dirname "$0")/../secrets"
chmod 700 .
if [ -e kafka.pem ]; then
    echo "deploy/secrets is filled already." >&2
    exit 0
fi
days=825
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -days "$days" -subj "/CN=stream-ad" -keyout ca.key -out ca.pem 2>/dev/null
chmod 600 ca.key
openssl req "${key[@]}" -subj "/CN=kafka" -keyout kafka.key -out kafka.csr 2>/dev/null
openssl x509 -req -in kafka.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -out kafka.crt \
    -extfile <(echo "subjectAltName=DNS:kafka,DNS:localhost,IP:127.0.0.1") 2>/dev/null
cat kafka.key kafka.crt ca.pem >kafka.pem
chmod 644 kafka.pem
rm kafka.key kafka.csr kafka.crt ca.srl
openssl rand -hex 24 | tr -d '\n' >kafka_password
password=$(cat kafka_password)
cat >kafka_jaas.conf <<JAAS
KafkaServer {
    org.apache.kafka.common.security.plain.PlainLoginModule required
    username="stream-ad" password="$password" user_stream-ad="$password";
};
JAAS
echo "deploy/secrets: ca.pem, kafka.pem, kafka_password, kafka_jaas.conf; keep ca.key elsewhere."
