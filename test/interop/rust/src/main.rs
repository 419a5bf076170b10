//! An unmodified workload on the Rust `spiffe` and `spiffe-rustls` crates, driven by the interop tests: one subcommand
//! for each thing a workload does. The Workload API is found through SPIFFE_ENDPOINT_SOCKET. Each result is one line of
//! JSON on standard output.

use std::error::Error;
use std::io::{BufRead, stdin};
use std::process::exit;
use std::sync::Arc;
use std::thread;

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use spiffe::cert::spiffe_id_from_der;
use spiffe::{Certificate, JwtSvid, SpiffeId, WorkloadApiClient, X509Context, X509Source, X509Svid};
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Done<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["fetch"] => fetch().await,
        ["watch"] => watch().await,
        ["jwt", audience] => jwt(audience).await,
        ["bundles"] => bundles().await,
        ["serve", wanted] => serve(wanted).await,
        ["dial", address, wanted] => dial(address, wanted).await,
        _ => Err(format!("unknown command {words:?}").into()),
    };
    if let Err(error) = done {
        eprintln!("{error:?}");
        exit(1);
    }
}

fn say(fields: Value) {
    println!("{fields}");
}

fn describe(svid: &X509Svid, context: &X509Context) -> Done<Value> {
    let bundle = context
        .bundle_set()
        .get(svid.spiffe_id().trust_domain())
        .ok_or("no bundle for the SVID's trust domain")?;
    Ok(json!({
        "id": svid.spiffe_id().to_string(),
        "hint": svid.hint(),
        "chain": encoded(svid.cert_chain()),
        "authorities": encoded(bundle.authorities()),
    }))
}

fn encoded(certificates: &[Certificate]) -> Vec<String> {
    certificates.iter().map(|one| base64(one.as_bytes())).collect()
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { letter as char } else { '=' });
        }
    }
    text
}

async fn fetch() -> Done {
    let context = WorkloadApiClient::connect_env().await?.fetch_x509_context().await?;
    let described: Done<Vec<Value>> = context.svids().iter().map(|svid| describe(svid, &context)).collect();
    let default = context.default_svid().ok_or("no SVID")?;
    say(json!({ "svids": described?, "default": default.spiffe_id().to_string() }));
    Ok(())
}

/// Says every update until standard input is closed.
async fn watch() -> Done {
    stop_when_input_closes();
    let client = WorkloadApiClient::connect_env().await?;
    let mut updates = client.stream_x509_contexts().await?;
    while let Some(update) = updates.next().await {
        let context = update?;
        say(describe(context.default_svid().ok_or("no SVID")?, &context)?);
    }
    Err("the stream ended".into())
}

/// Fetches a token and validates it twice: by the Workload API, and locally against the JWT bundles.
async fn jwt(audience: &str) -> Done {
    let client = WorkloadApiClient::connect_env().await?;
    let svid = client.fetch_jwt_svid([audience], None).await?;
    let validated = client.validate_jwt_token(audience, svid.token()).await?;
    let set = client.fetch_jwt_bundles().await?;
    let local = JwtSvid::parse_and_validate(svid.token(), &set, &[audience])?;
    let refused = client.validate_jwt_token("somebody-else", svid.token()).await.is_err();
    say(json!({
        "id": svid.spiffe_id().to_string(),
        "validated": validated.spiffe_id().to_string(),
        "local": local.spiffe_id().to_string(),
        "audience": local.audience(),
        "refused": refused,
    }));
    Ok(())
}

async fn bundles() -> Done {
    let client = WorkloadApiClient::connect_env().await?;
    let x509: Map<String, Value> = (client.fetch_x509_bundles().await?.iter())
        .map(|(domain, bundle)| (domain.to_string(), bundle.authorities().len().into()))
        .collect();
    let jwt: Map<String, Value> = (client.fetch_jwt_bundles().await?.iter())
        .map(|(domain, bundle)| (domain.to_string(), bundle.jwt_authorities().count().into()))
        .collect();
    say(json!({ "x509": x509, "jwt": jwt }));
    Ok(())
}

/// Answers one line to each peer that is `wanted`, and says who came, until standard input is closed.
async fn serve(wanted: &str) -> Done {
    stop_when_input_closes();
    let source = X509Source::new().await?;
    let config = mtls_server(source).authorize(authorizer::exact([wanted])?).build()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(json!({ "port": listener.local_addr()?.port() }));
    loop {
        let (plain, _) = listener.accept().await?;
        match acceptor.accept(plain).await {
            Ok(connection) => answer(connection).await?,
            Err(error) => say(json!({ "refused": error.to_string() })),
        }
    }
}

async fn answer(mut connection: TlsStream<TcpStream>) -> Done {
    let peer = peer_of(connection.get_ref().1.peer_certificates())?.to_string();
    say(json!({ "peer": peer }));
    connection.write_all(format!("hello {peer}\n").as_bytes()).await?;
    connection.shutdown().await?;
    Ok(())
}

async fn dial(address: &str, wanted: &str) -> Done {
    let source = X509Source::new().await?;
    let config = mtls_client(source).authorize(authorizer::exact([wanted])?).build()?;
    // rustls wants a name; who the peer is follows from its SPIFFE ID alone.
    let name = ServerName::try_from("localhost")?;
    let plain = TcpStream::connect(address).await?;
    let connection = TlsConnector::from(Arc::new(config)).connect(name, plain).await?;
    let peer = peer_of(connection.get_ref().1.peer_certificates())?.to_string();
    let mut heard = String::new();
    BufReader::new(connection).read_line(&mut heard).await?;
    if heard.is_empty() {
        return Err("the server said nothing".into());
    }
    say(json!({ "peer": peer, "heard": heard }));
    Ok(())
}

fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Done<SpiffeId> {
    let leaf = certificates.and_then(<[_]>::first).ok_or("the peer has no certificate")?;
    Ok(spiffe_id_from_der(leaf)?)
}

fn stop_when_input_closes() {
    thread::spawn(|| {
        // Whether it is closed or cannot be read, nobody asks for more.
        let _ = stdin().lock().read_line(&mut String::new());
        exit(0);
    });
}
