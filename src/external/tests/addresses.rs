//! A user's URL makes Bellhop call nothing that only Bellhop can reach.

use super::*;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// URLs that mean loopback, `PORT` being a server's; those marked `true` can be connected to from a test.
const LOOPBACK: [(&str, bool); 24] = [
    ("http://127.0.0.1:PORT/", true),
    ("http://127.8.9.10:PORT/", false),
    ("http://127.1:PORT/", true),
    ("http://127.0.1:PORT/", true),
    ("http://2130706433:PORT/", true),
    ("http://0x7f000001:PORT/", true),
    ("http://0x7f.1:PORT/", true),
    ("http://0X7F.0.0.0x1:PORT/", true),
    ("http://017700000001:PORT/", true),
    ("http://0177.0.0.1:PORT/", true),
    ("http://127.0.0.1.:PORT/", true),
    ("http://%31%32%37.0.0.1:PORT/", true),
    ("http://\u{ff11}\u{ff12}\u{ff17}.0.0.1:PORT/", true),
    ("http://127\u{3002}0\u{3002}0\u{3002}1:PORT/", true),
    ("http://[::ffff:127.0.0.1]:PORT/", false),
    ("http://[::ffff:7f00:1]:PORT/", false),
    ("http://[::ffff:0:7f00:1]:PORT/", false),
    ("http://[::127.0.0.1]:PORT/", false),
    ("http://[64:ff9b::7f00:1]:PORT/", false),
    ("http://[2002:7f00:1::]:PORT/", false),
    ("http://8.8.8.8@127.0.0.1:PORT/", true),
    ("http://8.8.8.8:80@127.0.0.1:PORT/", true),
    ("http://127.0.0.1:PORT\\@8.8.8.8/", true),
    ("http:\\\\127.0.0.1:PORT/#@8.8.8.8", true),
];

#[tokio::test]
async fn loopback_is_refused_in_every_spelling_and_called_if_the_administrator_says_so() {
    let server = Raw::answering(ok("{}")).await;
    let (strict, allowing) = (client(&[]), client(&["127.0.0.0/8"]));
    for (url, reachable) in LOOPBACK {
        let url = url.replace("PORT", &server.port.to_string());
        match get(&strict, &url).await {
            Err(CallFailure::Forbidden(why)) => assert!(why.contains("--allow-address"), "{url}: {why}"),
            other => panic!("{url}: {other:?}"),
        }
        assert_eq!(server.heads().len(), 0, "{url}");
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        policy.check_literal(&url.parse().unwrap(), Reach::Public).unwrap_or_else(|why| panic!("{url}: {why}"));
        if reachable {
            get(&allowing, &url).await.unwrap_or_else(|failure| panic!("{url}: {failure}"));
            assert_eq!(std::mem::take(&mut *server.heads.lock().unwrap()).len(), 1, "{url}");
        }
    }
}

/// An address that is not to be called, and the network by which an administrator can allow it.
const REFUSED: [(&str, &str); 33] = [
    ("127.0.0.1", "127.0.0.0/8"),
    ("::1", "::1/128"),
    ("::ffff:127.0.0.1", "127.0.0.0/8"),
    ("::ffff:0:127.0.0.1", "127.0.0.0/8"),
    ("::127.0.0.1", "127.0.0.0/8"),
    ("0.0.0.0", "0.0.0.0/32"),
    ("::", "::/128"),
    ("10.1.2.3", "10.0.0.0/8"),
    ("172.16.0.1", "172.16.0.0/12"),
    ("192.168.1.1", "192.168.0.0/16"),
    ("100.64.0.1", "100.64.0.0/10"),
    ("fc00::1", "fc00::/7"),
    ("::ffff:10.0.0.1", "10.0.0.0/8"),
    ("64:ff9b::a00:1", "10.0.0.0/8"),
    ("2002:a00:1::", "10.0.0.0/8"),
    // Metadata services: AWS, Azure, Google Cloud and others; AWS and Google Cloud on IPv6; Azure's wire server; Alibaba
    // Cloud; Oracle Cloud.
    ("169.254.169.254", "169.254.169.254/32"),
    ("::ffff:169.254.169.254", "169.254.169.254/32"),
    ("64:ff9b::a9fe:a9fe", "169.254.169.254/32"),
    ("2002:a9fe:a9fe::1", "169.254.169.254/32"),
    ("64:ff9b:1::a9fe:a9fe", "64:ff9b:1::/48"),
    ("fd00:ec2::254", "fd00:ec2::/32"),
    ("fd20:ce::254", "fd20:ce::/32"),
    ("168.63.129.16", "168.63.129.16/32"),
    ("100.100.100.200", "100.100.100.200/32"),
    ("192.0.0.192", "192.0.0.0/24"),
    ("169.254.1.1", "169.254.0.0/16"),
    ("fe80::1", "fe80::/10"),
    ("fec0::1", "fec0::/10"),
    // Teredo, with the server 65.54.227.120 and the client 192.0.2.45 (RFC 4380).
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::/32"),
    ("198.18.0.1", "198.18.0.0/15"),
    ("224.0.0.1", "224.0.0.0/4"),
    ("255.255.255.255", "255.255.255.255/32"),
    ("ff02::1", "ff00::/8"),
];

#[tokio::test]
async fn what_a_name_resolves_to_is_refused_and_allowed_like_the_address_itself() {
    for (address, network) in REFUSED {
        let ip: IpAddr = address.parse().unwrap();
        let host = if ip.is_ipv6() { format!("[{address}]") } else { address.to_owned() };
        let literal = get(&client(&[]), &format!("http://{host}/")).await;
        assert!(matches!(literal, Err(CallFailure::Forbidden(_))), "{address}: {literal:?}");
        let lookup: Lookup = Arc::new(move |_| Box::pin(async move { Ok(vec![SocketAddr::new(ip, 0)]) }));
        let named = get(&client_with(&[], lookup), "http://innocent.example.com/").await;
        let why = named.unwrap_err().to_string();
        assert!(why.contains("--allow-address") && why.contains("innocent.example.com"), "{address}: {why}");

        let policy = AddressPolicy::new(vec![network.parse().unwrap()]);
        policy.check(ip, Reach::Public).unwrap_or_else(|why| panic!("{address}: {why}"));
    }
    for public in ["140.82.112.3", "2606:50c0:8000::154", "172.32.0.1", "100.128.0.1", "64:ff9b::8c52:7003"] {
        AddressPolicy::default().check(public.parse().unwrap(), Reach::Public).unwrap();
    }
}

#[tokio::test]
async fn of_several_addresses_only_those_that_may_be_called_are() {
    let server = Raw::answering(ok("{}")).await;
    let lookup: Lookup = Arc::new(|_| {
        Box::pin(async {
            let all = ["169.254.169.254", "10.0.0.1", "127.0.0.1"];
            Ok(all.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect())
        })
    });
    let client = client_with(&["127.0.0.0/8"], lookup);
    get(&client, &format!("http://mixed.example.com:{}/", server.port)).await.unwrap();
    assert_eq!(server.heads().len(), 1);
}

/// A name server of an attacker: a good address for whoever checks, another one for whoever connects.
#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
    // The good server is at 127.0.0.2, which is allowed; the victim at 127.0.0.1, on the same port, is not.
    let victim = Raw::answering(ok("victim")).await;
    let good = TcpListener::bind(("127.0.0.2", victim.port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = good.accept().await {
            read_head(&mut stream).await;
            let _ = stream.write_all(&ok("good")).await;
        }
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let rebinding: Lookup = Arc::new(move |_| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let address = if first { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
        Box::pin(async move { Ok(vec![SocketAddr::from((address, 0))]) })
    });
    let client = client_with(&["127.0.0.2/32"], rebinding);
    let url = format!("http://rebinding.example.com:{}/", victim.port);
    let answer = get(&client, &url).await.unwrap();
    assert_eq!(&answer.body[..], b"good");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one answer for the check and for the connection");
    // The next connection asks again, and what it is told now is checked again.
    let why = get(&client, &url).await.unwrap_err().to_string();
    assert!(why.contains("127.0.0.1") && why.contains("--allow-address"), "{why}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(victim.heads().is_empty(), "{:?}", victim.heads());
}

#[tokio::test]
async fn a_name_without_an_address_is_an_answer_that_did_not_come() {
    let nothing: Lookup = Arc::new(|_| Box::pin(async { Err(io::Error::other("no such host")) }));
    let failure = get(&client_with(&[], nothing), "http://gone.example.com/").await.unwrap_err();
    assert!(matches!(failure, CallFailure::NoAnswer { .. }) && failure.to_string().contains("no such host"));
    // Names of loopback are not asked for.
    let why = get(&client(&[]), "http://gitea.localhost/").await.unwrap_err().to_string();
    assert!(why.contains("--allow-address"), "{why}");
}

#[tokio::test]
async fn redirects_are_followed_only_within_the_origin_and_only_as_the_same_call() {
    let thief = Raw::answering(ok("thief")).await;
    let loopback = format!("http://localhost:{}/", thief.port);
    for (status, target, followed) in [
        (301, "/elsewhere", false),
        (302, "/elsewhere", false),
        (303, "/elsewhere", false),
        (307, "/elsewhere", true),
        (308, "/elsewhere", true),
        (301, &thief.url(), false),
        (302, &thief.url(), false),
        (307, &thief.url(), false),
        (308, &thief.url(), false),
        (307, &loopback, false),
        (307, "//169.254.169.254/latest/meta-data", false),
        (308, "http://[::ffff:169.254.169.254]/", false),
        (307, "https://127.0.0.1/", false),
        (307, "file:///etc/passwd", false),
        (302, "javascript:alert(1)", false),
    ] {
        let location = target.to_owned();
        let server = Raw::start(move |head| {
            if head.starts_with("POST /start ") {
                format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes()
            } else {
                ok("followed")
            }
        })
        .await;
        let outcome = send(&client(&["127.0.0.0/8"]), call("POST", &format!("{}/start", server.url()))).await;
        let case = format!("{status} {target}: {outcome:?}");
        assert!(thief.heads().is_empty(), "{case}");
        if followed {
            assert_eq!(&outcome.unwrap().body[..], b"followed", "{case}");
            let second = &server.heads()[1];
            assert!(second.starts_with("POST /elsewhere ") && second.contains("t0ps3cret"), "{case}: {second}");
        } else {
            let failure = outcome.unwrap_err();
            assert_eq!(failure.status(), Some(status), "{case}");
            assert!(failure.to_string().contains("redirect") && failure.to_string().contains("not followed"), "{case}");
            assert!(!failure.to_string().contains("meta-data"), "{case}");
            assert_eq!(server.heads().len(), 1, "{case}");
        }
    }
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let server =
        Raw::answering("HTTP/1.1 307 Again\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
    let failure = get(&client(&["127.0.0.0/8"]), &server.url()).await.unwrap_err();
    assert_eq!(failure.status(), Some(307));
    assert_eq!(server.heads().len(), 6, "five are followed");
}
