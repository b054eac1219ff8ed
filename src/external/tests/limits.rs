//! No answer takes more memory or time than it may, and every failure is told in words for people.

use super::*;
use std::time::Instant;

const LOCAL: [&str; 1] = ["127.0.0.0/8"];

#[tokio::test]
async fn an_announced_100_mb_are_not_read() {
    // Nothing of the body ever comes: whoever waited for it would run into the time-out.
    let server = Raw::speaking(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    })
    .await;
    let start = Instant::now();
    let failure = get(&client(&LOCAL), &server.url()).await.unwrap_err();
    assert!(start.elapsed() < TIMEOUT / 2);
    assert!(matches!(failure, CallFailure::Unreadable { .. }), "{failure:?}");
    assert_eq!(failure.to_string(), format!("127.0.0.1:{} sent more than 4194304 bytes", server.port));
}

#[tokio::test]
async fn an_unannounced_100_mb_are_read_up_to_the_limit() {
    let sent = Arc::new(Mutex::new(0));
    let counter = sent.clone();
    let server = Raw::speaking(move |_, mut stream| {
        let counter = counter.clone();
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1024 * 1024], b"\r\n".to_vec()].concat();
            for _ in 0..100 {
                if stream.write_all(&chunk).await.is_err() {
                    break;
                }
                *counter.lock().unwrap() += 1;
            }
        }
    })
    .await;
    let failure = get(&client(&LOCAL), &server.url()).await.unwrap_err();
    assert!(failure.to_string().contains("more than 4194304 bytes"), "{failure}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What the sockets on the way hold comes on top; the connection is closed then.
    let sent = *sent.lock().unwrap();
    assert!((4..40).contains(&sent), "{sent} MiB were sent");
}

#[tokio::test]
async fn a_large_page_with_a_refusal_stays_a_refusal() {
    let server = Raw::answering("HTTP/1.1 401 No\r\ncontent-length: 104857600\r\n\r\n").await;
    let failure = get(&client(&LOCAL), &server.url()).await.unwrap_err();
    assert_eq!(failure.status(), Some(401));
    assert!(failure.to_string().contains("answered 401"), "{failure}");
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_time() {
    let server = Raw::speaking(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let start = Instant::now();
    install_crypto();
    let hasty = Client::new(Settings { timeout: Duration::from_millis(1500), ..settings(&LOCAL) }).unwrap();
    let failure = get(&hasty, &server.url()).await.unwrap_err();
    assert!(start.elapsed() < TIMEOUT);
    assert!(failure.to_string().contains("did not answer within 1.5s"), "{failure}");
}

#[tokio::test]
async fn a_head_without_an_end_is_not_collected_for_ever() {
    let server = Raw::speaking(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(&[b"x: ".to_vec(), vec![b'y'; 8000], b"\r\n".to_vec()].concat()).await.is_ok() {}
    })
    .await;
    let start = Instant::now();
    get(&client(&LOCAL), &server.url()).await.unwrap_err();
    assert!(start.elapsed() < TIMEOUT, "the limit is one of size");
}

#[tokio::test]
async fn nothing_is_unpacked() {
    // 20 bytes that say that they are gzip.
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 20\r\n\r\n".to_vec();
    answer.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let server = Raw::answering(answer).await;
    let failure = get(&client(&LOCAL), &server.url()).await.unwrap_err();
    assert!(matches!(failure, CallFailure::Unreadable { .. }) && failure.to_string().contains("gzip"), "{failure}");
    let head = server.heads()[0].to_lowercase();
    assert!(head.contains("accept-encoding: identity"), "{head}");
}

#[tokio::test]
async fn what_fails_on_the_way_is_told_apart() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let failure = get(&client(&LOCAL), &format!("http://{refused}")).await.unwrap_err().to_string();
    assert!(failure.starts_with(&format!("{refused} could not be reached: ")), "{failure}");
    assert!(failure.to_lowercase().contains("connection refused"), "{failure}");

    let silent = Raw::speaking(|_, stream| async move { drop(stream) }).await;
    let failure = get(&client(&LOCAL), &silent.url()).await.unwrap_err().to_string();
    assert!(failure.contains("gave no whole answer"), "{failure}");

    let half = Raw::answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":").await;
    let failure = get(&client(&LOCAL), &half.url()).await.unwrap_err().to_string();
    assert!(failure.contains("gave no whole answer"), "{failure}");
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_without_further_calls() {
    let server = Raw::answering(
        "HTTP/1.1 429 Slow down\r\nretry-after: 2\r\ncontent-length: 17\r\nconnection: close\r\n\r\n{\"message\":\"no\"} ",
    )
    .await;
    let client = client(&LOCAL);
    let first = get(&client, &server.url()).await.unwrap_err();
    assert_eq!((first.status(), first.retry_after()), (Some(429), Some(Duration::from_secs(2))));
    for _ in 0..3 {
        let again = get(&client, &server.url()).await.unwrap_err();
        assert!(again.nothing_was_sent() && again.retry_after() <= Some(Duration::from_secs(2)), "{again:?}");
        assert!(again.to_string().contains("is not called for now: it asks for a pause until "), "{again}");
    }
    assert_eq!(server.heads().len(), 1);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(get(&client, &server.url()).await.unwrap_err().status(), Some(429));
}

#[tokio::test]
async fn the_last_call_that_is_left_is_followed_by_a_pause() {
    let server = Raw::answering(
        "HTTP/1.1 200 OK\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset-after: 30\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    let client = client(&LOCAL);
    get(&client, &server.url()).await.unwrap();
    let again = get(&client, &server.url()).await.unwrap_err();
    assert!(matches!(again, CallFailure::Throttled { .. }), "{again:?}");
    // Somebody else's budget is not touched.
    let other = Secret::from("another".to_owned());
    client.send(call("GET", &server.url()), &[], &BudgetKey::new("gitea", [&other])).await.unwrap();
}
