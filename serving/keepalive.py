"""How a client and the service find out that their connection is dead, in options of gRPC.

By default gRPC's server ends the connection of a client that pings more often than every 5 minutes,
or without a call (GOAWAY, ENHANCE_YOUR_CALM). That is more rarely than firewalls and load balancers
want it, and than clients are usually set to.
"""

# gRPC's clients ping once a second at most.
SERVER_OPTIONS = (
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
)
# A connection that died without a word is noticed within 40 s, and a service that was restarted is
# called again within about 2 s; by default, gRPC waits for up to 2 minutes.
CLIENT_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
