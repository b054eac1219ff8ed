//! From which address a request comes: that of the connection, or what trusted proxies say of it.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The header in which each proxy adds the address that it was connected from.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Most addresses that are looked at; each is a proxy that is trusted.
const HOPS: usize = 32;

/// The address at the other end of a connection; an extension of each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The address of the client: of the addresses in X-Forwarded-For and the connection, read from the end, the first that is no
/// trusted proxy. What stands before that was written by whoever sent the request, and is not believed.
///
/// Nothing, if the connection's address is not known, or a trusted proxy has written something that is no address.
pub fn client(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer?.to_canonical();
    if !is_trusted(&client) {
        return Some(client);
    }
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        // A value that is no text hides what the proxies have added.
        hops.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    for (at, hop) in hops.iter().rev().enumerate() {
        if at >= HOPS {
            return None;
        }
        client = address(hop)?;
        if !is_trusted(&client) {
            break;
        }
    }
    Some(client)
}

/// An address, perhaps with the port that some proxies add, perhaps in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> Option<String> {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"].iter().map(|net| net.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        client(Some(peer.parse().unwrap()), &headers, &trusted).map(|client| client.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        for (peer, forwarded, client) in [
            // Nobody is in between, whatever the sender claims.
            ("192.0.2.1", &[][..], Some("192.0.2.1")),
            ("192.0.2.1", &["198.51.100.7"], Some("192.0.2.1")),
            // One proxy, and two.
            ("10.0.0.1", &["198.51.100.7"], Some("198.51.100.7")),
            ("10.0.0.1", &["198.51.100.7, 10.0.0.2"], Some("198.51.100.7")),
            ("10.0.0.1", &["198.51.100.7", "10.0.0.2"], Some("198.51.100.7")),
            ("2001:db8::1", &["2001:db9::7"], Some("2001:db9::7")),
            // What the sender wrote itself stands before what the proxies add.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], Some("198.51.100.7")),
            ("10.0.0.1", &["203.0.113.9", "nonsense", "198.51.100.7"], Some("198.51.100.7")),
            // A proxy itself, and a client inside of the trusted network.
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &["10.0.0.9, 10.0.0.2"], Some("10.0.0.9")),
            // As some write it.
            ("10.0.0.1", &["198.51.100.7:4711"], Some("198.51.100.7")),
            ("10.0.0.1", &["[2001:db9::7]:4711"], Some("2001:db9::7")),
            ("10.0.0.1", &["[2001:db9::7]"], Some("2001:db9::7")),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], Some("198.51.100.7")),
            // What a proxy wrote cannot be read: then it is not known who it was.
            ("10.0.0.1", &["unknown"], None),
            ("10.0.0.1", &["198.51.100.7, "], None),
            ("10.0.0.1", &["198.51.100.7", "\u{e4}"], None),
        ] {
            assert_eq!(seen(peer, forwarded).as_deref(), client, "{peer} {forwarded:?}");
        }
        assert_eq!(seen("10.0.0.1", &[["10.0.0.2"; 40].join(",").as_str()]), None);
        assert_eq!(client(None, &HeaderMap::new(), &[]), None);
    }
}
