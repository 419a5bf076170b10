const TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const PROTOCOL = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

export type Variant = "GRPC" | "DELTA_GRPC";

/** What presents and what verifies, by resource name. */
export interface Secrets {
  readonly variant: Variant;
  readonly certificate: string;
  readonly validation: string;
  /** How long Envoy waits for them before it goes on without. Its own default is 15 s. */
  readonly patience?: string;
}

const sds = (name: string, { variant, patience = "15s" }: Secrets) => ({
  name,
  sds_config: {
    resource_api_version: "V3",
    initial_fetch_timeout: patience,
    api_config_source: {
      api_type: variant,
      transport_api_version: "V3",
      set_node_on_first_message_only: true,
      grpc_services: [{ envoy_grpc: { cluster_name: "agentid" } }],
    },
  },
});

const tlsContext = (secrets: Secrets, peers: readonly string[]) => ({
  tls_certificate_sds_secret_configs: [sds(secrets.certificate, secrets)],
  combined_validation_context: {
    default_validation_context: {
      match_typed_subject_alt_names: peers.map((exact) => ({ san_type: "URI", matcher: { exact } })),
    },
    validation_context_sds_secret_config: sds(secrets.validation, secrets),
  },
});

/** A TLS listener that wants a client certificate and answers with the caller's SPIFFE ID. */
export function tlsListener(name: string, secrets: Secrets): object {
  return listener(
    name,
    { direct_response: { status: 200, body: { inline_string: "" } } },
    {
      name: "tls",
      typed_config: {
        "@type": `${TLS}.DownstreamTlsContext`,
        require_client_certificate: true,
        common_tls_context: tlsContext(secrets, []),
      },
    },
  );
}

/** A plain listener in front of `cluster`. */
export function plainListener(name: string, cluster: string): object {
  return listener(name, { route: { cluster } }, undefined);
}

function listener(name: string, action: object, transport_socket: object | undefined): object {
  const response_headers_to_add = [
    { header: { key: "x-peer", value: "%DOWNSTREAM_PEER_URI_SAN%" }, append_action: "OVERWRITE_IF_EXISTS_OR_ADD" },
  ];
  const route_config = {
    virtual_hosts: [
      { name: "all", domains: ["*"], routes: [{ match: { prefix: "/" }, ...action }], response_headers_to_add },
    ],
  };
  const http_filters = [{ name: "envoy.filters.http.router", typed_config: { "@type": ROUTER } }];
  const http = { "@type": HTTP, stat_prefix: name, route_config, http_filters };
  return {
    name,
    address: { socket_address: { address: "127.0.0.1", port_value: 0 } },
    filter_chains: [{ filters: [{ name: "http", typed_config: http }], ...(transport_socket && { transport_socket }) }],
  };
}

/** A TLS server on `port` that must be one of `peers`. */
export function tlsCluster(name: string, port: number, secrets: Secrets, peers: readonly string[]): object {
  return {
    ...cluster(name, { socket_address: { address: "127.0.0.1", port_value: port } }),
    transport_socket: {
      name: "tls",
      typed_config: { "@type": `${TLS}.UpstreamTlsContext`, common_tls_context: tlsContext(secrets, peers) },
    },
  };
}

/** The Workload API's socket, as the cluster that secrets come from. */
export function agentidCluster(socketPath: string): object {
  return {
    ...cluster("agentid", { pipe: { path: socketPath } }),
    typed_extension_protocol_options: {
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": PROTOCOL,
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
}

function cluster(name: string, address: object): object {
  const lb_endpoints = [{ endpoint: { address } }];
  return { name, connect_timeout: "1s", load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints }] } };
}
