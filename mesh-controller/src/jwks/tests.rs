use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const KEYS: &str = r#"{"keys":[{"kty":"RSA"}]}"#;

/// A server that answers every request with what `answer` makes of its path.
async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let request = String::from_utf8(request).unwrap();
            let answer = answer(request.split(' ').nth(1).unwrap_or_default());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn client(blocked: &str) -> Client {
    Client { guard: Guard::new(blocked).0, tls: fetch::tls(Path::new("/nowhere")).unwrap() }
}

#[tokio::test]
async fn only_a_key_set_is_passed_on() {
    let server = serve(|path| match path {
        "/keys" => ok(KEYS),
        "/secret" => ok("password=1"),
        "/json" => ok("{\"keys\":1}"),
        "/moved" => "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/long" => ok(&" ".repeat(2 << 20)),
        "/hang" => String::new(),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    })
    .await;
    let get = async |path: &str, client: Client| {
        client.keys(&KeySource::Url(format!("{server}{path}").into()), Duration::from_secs(5)).await
    };
    assert_eq!(get("/keys", client("")).await, Ok(KEYS.into()));
    for (path, why) in [
        ("/secret", "no JSON Web Key Set"),
        ("/json", "no JSON Web Key Set"),
        ("/moved", "302"),
        ("/long", "length limit"),
        ("/hang", ""),
        ("/else", "404"),
    ] {
        let error = get(path, client("")).await.expect_err(path);
        assert!(error.contains(why), "{path}: {error}");
    }
    let error = get("/keys", client("127.0.0.0/8")).await.unwrap_err();
    assert!(error.contains("must not be asked"), "{error}");
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/keys", "nonsense", "http://169.254.169.254/x"] {
        assert!(client("").keys(&KeySource::Url(url.into()), Duration::from_secs(5)).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn an_issuer_says_where_its_keys_are() {
    let keys = serve(|_| ok(KEYS)).await;
    let found = ok(&format!("{{\"jwks_uri\":\"{keys}/k\"}}"));
    let issuer =
        serve(move |path| if path == "/.well-known/openid-configuration" { found.clone() } else { ok("{}") }).await;
    let source = KeySource::Issuer(format!("{issuer}/").into());
    assert_eq!(client("").keys(&source, Duration::from_secs(5)).await, Ok(KEYS.into()));
    let nobody = KeySource::Issuer(keys.into());
    assert!(client("").keys(&nobody, Duration::from_secs(5)).await.unwrap_err().contains("names no `jwks_uri`"));
}

#[tokio::test]
async fn what_is_wanted_is_fetched_and_told_and_let_go() {
    let server = serve(|path| if path == "/keys" { ok(KEYS) } else { ok("") }).await;
    let (good, bad) = (KeySource::Url(format!("{server}/keys").into()), KeySource::Url(format!("{server}/bad").into()));
    let (sender, wanted) = watch::channel(Wanted::default());
    let (news, mut heard) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let fetcher = Fetcher::new(&Features::default(), wanted, news).unwrap();
    let running = tokio::spawn(fetcher.run(stop.clone()));
    let timeout = Written::from_secs(5);
    sender.send(Arc::new([(good.clone(), timeout), (bad.clone(), timeout)].into())).unwrap();
    let mut first = [heard.recv().await.unwrap(), heard.recv().await.unwrap()];
    first.sort_by(|(a, _), (b, _)| b.cmp(a));
    assert_eq!(first[0], (good.clone(), Some(FetchedKeys::Set(KEYS.into()))));
    assert!(matches!(&first[1], (source, Some(FetchedKeys::Failed(_))) if *source == bad));
    sender.send(Arc::new([(bad, timeout)].into())).unwrap();
    while let Some(told) = heard.recv().await {
        if told.0 == good {
            assert_eq!(told.1, None);
            break;
        }
    }
    stop.cancel();
    running.await.unwrap();
}
