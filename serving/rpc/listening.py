"""What a service listens with: its port, its certificate, and the tokens that it knows."""

import contextlib
import ssl
from pathlib import Path

import grpc

from recsys.errors import ConfigError
from serving.addresses import check_free, join
from serving.config import ServiceConfig
from serving.tokens import Tokens

_ANY_STRENGTH = "DEFAULT:@SECLEVEL=0"  # how long a key must be is for gRPC and clients to say


class Listener:
    """Opens the port of a service; whatever is wrong with it shows when this is made.

    Args:
        config: Settings of the service.

    Raises:
        ConfigError: If the address cannot be listened on, or the certificate or the file of tokens
            cannot be used.
    """

    def __init__(self, config: ServiceConfig) -> None:
        check_free("address", config.host, config.port)
        self._host, self._port = config.host, config.port
        token = config.token.get_secret_value() if config.token is not None else None
        self.tokens = Tokens(token, config.tokens)
        self._credentials: grpc.ServerCredentials | None = None
        if config.tls_certificate is not None and config.tls_key is not None:
            self._credentials = read_credentials(
                config.tls_certificate, config.tls_key, config.tls_clients
            )

    def listen(self, server: grpc.aio.Server) -> str:
        """Add the port to a server and return the address that clients call.

        Raises:
            ConfigError: If something took the port meanwhile.
        """
        address = join(self._host, self._port)
        try:
            if self._credentials is None:
                return join(self._host, server.add_insecure_port(address))
            return join(self._host, server.add_secure_port(address, self._credentials))
        except RuntimeError as error:
            check_free("address", self._host, self._port)
            raise ConfigError(f"address {address} cannot be listened on: {error}") from error


def read_credentials(
    certificate: Path, key: Path, clients: Path | None = None
) -> grpc.ServerCredentials:
    """Return the credentials of a server, from PEM files.

    Args:
        certificate: File with the certificate, and with those that signed it.
        key: File with its private key, which has no password.
        clients: File with the certificates that sign those of clients, which then must have one;
            None asks clients for none.

    Raises:
        ConfigError: If a file cannot be read, the key is not the certificate's, or the certificate
            is not valid now. gRPC would start, and refuse every call.
    """
    chain, secret = _read("tls_certificate", certificate), _read("tls_key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.set_ciphers(_ANY_STRENGTH)
        context.load_cert_chain(certificate, key, password="")
        reason = _find_fault(context, chain.decode())
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"tls_certificate {certificate} and tls_key {key} must be PEM files of a certificate "
            f"and its private key without a password, but they do not go together: {error}"
        ) from error
    if reason is not None:
        raise ConfigError(
            f"tls_certificate {certificate} must be one that clients accept now: {reason}; "
            "replace it"
        )
    if clients is None:
        return grpc.ssl_server_credentials([(secret, chain)])
    signers = _read("tls_clients", clients)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=signers.decode())
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"tls_clients {clients} must be a PEM file with certificates: {error}"
        ) from error
    return grpc.ssl_server_credentials([(secret, chain)], signers, require_client_auth=True)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} {path} must be a readable file: {error.strerror}") from error


def _find_fault(server: ssl.SSLContext, chain: str) -> str | None:
    """Return why a client that trusts the certificate would refuse it now; None if it accepts."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_ciphers(_ANY_STRENGTH)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=chain)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (near, far, near):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return None
