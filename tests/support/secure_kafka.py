"""A real Kafka with encryption, passwords and rights, and certificates made by the JDK's keytool."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from stream_ad.settings import Settings
from tests.support.kafka_server import KafkaServer

PASSWORDS = {"ann": "ann-s3cret-word", "bob": "bob-s3cret-word", "eve": "eve-s3cret-word"}
"""Ann and Bob may do everything, Eve nothing."""
_STORE = "keystore-password"
_KEY = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "3650", "-storetype", "PKCS12")


class SecureKafka(KafkaServer):
    """Listeners ``SECURE`` (TLS and password), ``LOGIN`` (password) and ``TLS``; ``PLAINTEXT`` for the tests."""

    def __init__(self) -> None:
        self.certificates = Path(tempfile.mkdtemp(prefix="certificates-"))
        self.ca_file = self._authority("ca")
        self.other_ca_file = self._authority("other")
        plain = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
        logins = {
            f"listener.name.{listener}.{key}": value
            for listener in ("secure", "login")
            for key, value in {
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
                "plain.sasl.jaas.config": f"org.apache.kafka.common.security.plain.PlainLoginModule required {plain};",
                "scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            }.items()
        }
        super().__init__(
            settings={
                "ssl.keystore.location": str(self._server_store()),
                "ssl.keystore.password": _STORE,
                "ssl.keystore.type": "PKCS12",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS;User:ann;User:bob",
                **logins,
            },
            listeners={"SECURE": "SASL_SSL", "LOGIN": "SASL_PLAINTEXT", "TLS": "SSL"},
            users=PASSWORDS,
        )

    def _keytool(self, *arguments: str) -> None:
        command = ["keytool", *arguments, "-storepass", _STORE]
        done = subprocess.run(command, cwd=self.certificates, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"keytool {arguments[0]}: {done.stdout}{done.stderr}")

    def _authority(self, name: str) -> Path:
        self._keytool(
            "-genkeypair", "-alias", name, "-dname", f"CN={name}", "-ext", "bc:c", "-keystore", f"{name}.p12", *_KEY
        )
        self._keytool("-exportcert", "-rfc", "-alias", name, "-keystore", f"{name}.p12", "-file", f"{name}.pem")
        return self.certificates / f"{name}.pem"

    def _server_store(self) -> Path:
        store = ("-keystore", "server.p12")
        san = ("-ext", "san=ip:127.0.0.1")
        self._keytool("-genkeypair", "-alias", "server", "-dname", "CN=127.0.0.1", *san, *store, *_KEY)
        self._keytool("-certreq", "-alias", "server", "-file", "server.csr", *store)
        signed = ("-infile", "server.csr", "-outfile", "server.pem", "-rfc", "-validity", "3650")
        self._keytool("-gencert", "-alias", "ca", "-keystore", "ca.p12", *san, *signed)
        self._keytool("-importcert", "-noprompt", "-alias", "ca", "-file", "ca.pem", *store)
        self._keytool("-importcert", "-noprompt", "-alias", "server", "-file", "server.pem", *store)
        return self.certificates / "server.p12"

    def close(self) -> None:
        super().close()
        shutil.rmtree(self.certificates, ignore_errors=True)


def secured() -> Settings:
    """Return settings with everything that broker.security has, for brokers that do not exist."""
    security = {
        "protocol": "SASL_SSL",
        "ca_file": "ca.pem",
        "certificate_file": "me.pem",
        "key_file": "me.key",
        "mechanism": "SCRAM-SHA-512",
        "username": "ann",
        "password": "secret",
    }
    return Settings(broker={"kind": "kafka", "security": security, "bootstrap_servers": "a:1, b:2"})
