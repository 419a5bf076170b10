import io.spiffe.bundle.jwtbundle.JwtBundle;
import io.spiffe.bundle.jwtbundle.JwtBundleSet;
import io.spiffe.bundle.x509bundle.X509Bundle;
import io.spiffe.exception.JwtSvidException;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/**
 * An unmodified java-spiffe workload, driven by the interop tests: one subcommand for each thing a workload does.
 * The Workload API is found through SPIFFE_ENDPOINT_SOCKET. Each result is one line of JSON on standard output.
 */
public final class Workload {
  private Workload() {}

  public static void main(String[] arguments) throws Exception {
    switch (arguments[0]) {
      case "fetch" -> fetch();
      case "watch" -> watch();
      case "jwt" -> jwt(arguments[1]);
      case "bundles" -> bundles();
      case "serve" -> serve(SpiffeId.parse(arguments[1]));
      case "dial" -> dial(arguments[1], SpiffeId.parse(arguments[2]));
      default -> throw new IllegalArgumentException("unknown command " + arguments[0]);
    }
    // The library's threads would keep the process alive.
    System.exit(0);
  }

  private static void fetch() throws Exception {
    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
      X509Context context = client.fetchX509Context();
      List<Object> svids = new ArrayList<>();
      for (X509Svid svid : context.getX509Svids()) svids.add(describe(svid, context));
      say(Map.of("svids", svids, "default", context.getDefaultSvid().getSpiffeId().toString()));
    }
  }

  /** Says every update until standard input is closed. */
  private static void watch() throws Exception {
    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
      client.watchX509Context(
          new Watcher<>() {
            @Override
            public void onUpdate(X509Context context) {
              try {
                say(describe(context.getDefaultSvid(), context));
              } catch (Exception thrown) {
                onError(thrown);
              }
            }

            @Override
            public void onError(Throwable thrown) {
              say(Map.of("error", thrown.toString()));
            }
          });
      untilInputCloses();
      System.exit(0);
    }
  }

  /** The chain verifies to its own trust domain's bundle, by java-spiffe's own verifier. */
  private static Map<String, Object> describe(X509Svid svid, X509Context context) throws Exception {
    X509SvidValidator.verifyChain(svid.getChain(), context.getX509BundleSet());
    X509Bundle bundle = context.getX509BundleSet().getBundleForTrustDomain(svid.getSpiffeId().getTrustDomain());
    Map<String, Object> fields = new LinkedHashMap<>();
    fields.put("id", svid.getSpiffeId().toString());
    fields.put("hint", svid.getHint());
    fields.put("chain", encoded(svid.getChain()));
    fields.put("authorities", encoded(bundle.getX509Authorities()));
    return fields;
  }

  private static List<String> encoded(Collection<X509Certificate> certificates) throws Exception {
    List<String> list = new ArrayList<>();
    for (X509Certificate one : certificates) list.add(Base64.getEncoder().encodeToString(one.getEncoded()));
    return list;
  }

  /** Fetches a token and validates it twice: by the Workload API, and locally against the JWT bundles. */
  private static void jwt(String audience) throws Exception {
    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
      JwtSvid svid = client.fetchJwtSvid(audience);
      JwtSvid validated = client.validateJwtSvid(svid.getToken(), audience);
      JwtBundleSet set = client.fetchJwtBundles();
      JwtSvid local = JwtSvid.parseAndValidate(svid.getToken(), set, Set.of(audience));
      boolean refused = false;
      try {
        client.validateJwtSvid(svid.getToken(), "somebody-else");
      } catch (JwtSvidException thrown) {
        refused = true;
      }
      say(
          Map.of(
              "id", svid.getSpiffeId().toString(),
              "validated", validated.getSpiffeId().toString(),
              "local", local.getSpiffeId().toString(),
              "audience", List.copyOf(new TreeSet<>(local.getAudience())),
              "refused", refused));
    }
  }

  private static void bundles() throws Exception {
    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
      Collection<X509Bundle> x509 = client.fetchX509Bundles().getBundles().values();
      Collection<JwtBundle> tokens = client.fetchJwtBundles().getBundles().values();
      say(
          Map.of(
              "x509",
              x509.stream()
                  .collect(Collectors.toMap(one -> one.getTrustDomain().getName(), one -> one.getX509Authorities().size())),
              "jwt",
              tokens.stream()
                  .collect(Collectors.toMap(one -> one.getTrustDomain().getName(), one -> one.getJwtAuthorities().size()))));
    }
  }

  private static SSLContext tls(DefaultX509Source source, SpiffeId wanted) throws Exception {
    // By default the library speaks no more than TLS 1.2, and the Rust program no less than 1.3.
    SslContextOptions options =
        SslContextOptions.builder()
            .sslProtocol("TLSv1.3")
            .x509Source(source)
            .acceptedSpiffeIdsSupplier(() -> Set.of(wanted))
            .build();
    return SpiffeSslContextFactory.getSslContext(options);
  }

  /** Answers one line to each peer that is wanted, and says who came, until standard input is closed. */
  private static void serve(SpiffeId wanted) throws Exception {
    Thread stopping =
        new Thread(
            () -> {
              untilInputCloses();
              Runtime.getRuntime().halt(0);
            });
    stopping.setDaemon(true);
    stopping.start();
    try (DefaultX509Source source = DefaultX509Source.newSource();
        SSLServerSocket listener =
            (SSLServerSocket)
                tls(source, wanted)
                    .getServerSocketFactory()
                    .createServerSocket(0, 16, InetAddress.getLoopbackAddress())) {
      listener.setNeedClientAuth(true);
      say(Map.of("port", listener.getLocalPort()));
      while (true) {
        try (SSLSocket connection = (SSLSocket) listener.accept()) {
          connection.startHandshake();
          String peer = peerOf(connection);
          say(Map.of("peer", peer));
          connection.getOutputStream().write(("hello " + peer + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (SSLException refused) {
          say(Map.of("refused", refused.toString()));
        }
      }
    }
  }

  private static void dial(String address, SpiffeId wanted) throws Exception {
    String[] parts = address.split(":");
    try (DefaultX509Source source = DefaultX509Source.newSource();
        SSLSocket connection =
            (SSLSocket) tls(source, wanted).getSocketFactory().createSocket(parts[0], Integer.parseInt(parts[1]))) {
      connection.startHandshake();
      BufferedReader reader =
          new BufferedReader(new InputStreamReader(connection.getInputStream(), StandardCharsets.UTF_8));
      String heard = reader.readLine();
      if (heard == null) throw new IOException("the server said nothing");
      say(Map.of("peer", peerOf(connection), "heard", heard + "\n"));
    }
  }

  private static String peerOf(SSLSocket connection) throws Exception {
    X509Certificate leaf = (X509Certificate) connection.getSession().getPeerCertificates()[0];
    // RFC 5280 §4.2.1.6: a URI is a name of type 6.
    return leaf.getSubjectAlternativeNames().stream()
        .filter(name -> name.get(0).equals(6))
        .map(name -> (String) name.get(1))
        .findFirst()
        .orElseThrow();
  }

  private static void untilInputCloses() {
    try {
      while (System.in.read() != -1) {
        // Nothing is said to it.
      }
    } catch (IOException closed) {
      // The same as the end of the input.
    }
  }

  private static synchronized void say(Map<String, ?> fields) {
    System.out.println(json(fields));
    System.out.flush();
  }

  /** What is said here are maps, lists, booleans, numbers and text. */
  private static String json(Object value) {
    if (value instanceof Map<?, ?> map) {
      return map.entrySet().stream()
          .map(entry -> json(entry.getKey()) + ":" + json(entry.getValue()))
          .collect(Collectors.joining(",", "{", "}"));
    }
    if (value instanceof List<?> list) {
      return list.stream().map(Workload::json).collect(Collectors.joining(",", "[", "]"));
    }
    if (value instanceof Boolean || value instanceof Number || value == null) return String.valueOf(value);
    StringBuilder text = new StringBuilder("\"");
    for (char each : value.toString().toCharArray()) {
      if (each == '"' || each == '\\') text.append('\\').append(each);
      else if (each < 0x20) text.append(String.format("\\u%04x", (int) each));
      else text.append(each);
    }
    return text.append('"').toString();
  }
}
