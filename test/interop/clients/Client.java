import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.CookieManager;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;

/**
 * One run of Java's own client as it comes, which asks every server for HTTP/2 by an Upgrade: the requests on standard input, a line each, or the WebSockets
 * that the arguments name.
 */
public final class Client {
  public static void main(String[] urls) throws Exception {
    HttpClient client = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();
    if (urls.length == 0) {
      request(client);
      return;
    }
    for (String url : urls) System.out.println(visit(client, URI.create(url)));
    System.exit(0);
  }

  /** A line: method, URL, file or nothing, `chunked` or nothing, `stream` or nothing, and headers; tabs between them. */
  private static void request(HttpClient client) throws Exception {
    List<String> answers = new ArrayList<>();
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      String[] asked = line.split("\t", -1);
      HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(asked[1])).method(asked[0], body(asked[2], asked[3]));
      for (int at = 5; at < asked.length; at += 1) {
        String[] header = asked[at].split(": ", 2);
        request.header(header[0], header[1]);
      }
      if (asked[4].equals("stream")) {
        client.send(request.build(), BodyHandlers.ofLines()).body().forEach(System.out::println);
        continue;
      }
      HttpResponse<byte[]> answer = client.send(request.build(), BodyHandlers.ofByteArray());
      List<String> headers = new ArrayList<>();
      answer.headers().map().forEach((name, values) -> values.forEach((value) -> headers.add("[" + quoted(name) + "," + quoted(value) + "]")));
      String failure = answer.statusCode() < 400 ? "null" : quoted(answer.toString());
      String bytes = quoted(Base64.getEncoder().encodeToString(answer.body()));
      answers.add("{\"status\":" + answer.statusCode() + ",\"headers\":[" + String.join(",", headers) + "],\"body\":" + bytes + ",\"failure\":" + failure + "}");
    }
    System.out.println("[" + String.join(",", answers) + "]");
  }

  private static BodyPublisher body(String file, String chunked) throws Exception {
    if (file.isEmpty()) return BodyPublishers.noBody();
    if (!chunked.equals("chunked")) return BodyPublishers.ofFile(Path.of(file));
    byte[] bytes = Files.readAllBytes(Path.of(file));
    return BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(bytes));
  }

  /** Says hello and sends a megabyte, and says what came back; or what the refusal was. */
  private static String visit(HttpClient client, URI url) throws Exception {
    Heard heard = new Heard();
    WebSocket socket;
    try {
      socket = client.newWebSocketBuilder().subprotocols("v1.chat").buildAsync(url, heard).join();
    } catch (CompletionException refused) {
      if (!(refused.getCause() instanceof WebSocketHandshakeException why)) throw refused;
      return "{\"status\":" + why.getResponse().statusCode() + "}";
    }
    socket.sendText("hello", true).join();
    String text = heard.text.get(20, TimeUnit.SECONDS);
    byte[] large = new byte[1 << 20];
    new Random(1).nextBytes(large);
    socket.sendBinary(ByteBuffer.wrap(large), true).join();
    boolean same = Arrays.equals(large, heard.bytes.get(20, TimeUnit.SECONDS));
    socket.sendClose(4321, "enough").join();
    int closed = heard.closed.get(20, TimeUnit.SECONDS);
    return "{\"text\":" + quoted(text) + ",\"large\":" + same + ",\"subprotocol\":" + quoted(socket.getSubprotocol()) + ",\"closed\":" + closed + "}";
  }

  private static String quoted(String text) {
    return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
  }

  private static final class Heard implements WebSocket.Listener {
    final CompletableFuture<String> text = new CompletableFuture<>();
    final CompletableFuture<byte[]> bytes = new CompletableFuture<>();
    final CompletableFuture<Integer> closed = new CompletableFuture<>();
    private final java.io.ByteArrayOutputStream came = new java.io.ByteArrayOutputStream();

    @Override
    public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
      text.complete(data.toString());
      socket.request(1);
      return null;
    }

    @Override
    public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
      byte[] piece = new byte[data.remaining()];
      data.get(piece);
      came.writeBytes(piece);
      if (last) bytes.complete(came.toByteArray());
      socket.request(1);
      return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
      closed.complete(code);
      return null;
    }
  }
}
