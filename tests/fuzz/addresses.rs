//! From where a request comes, when proxies say so.

use super::hold;
use bellhop::ingress::client_address;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::IpAddr;

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        (0_u32..1 << 24).prop_map(|bits| IpAddr::from((bits | (10 << 24)).to_be_bytes())),
        any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
    ]
}

/// Whatever a sender writes into X-Forwarded-For, it is not believed: the address that the last proxy saw is.
#[test]
fn address_of_a_sender() {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let written = prop_oneof![
        proptest::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..60),
        proptest::collection::vec(addresses(), 0..6).prop_map(|all| all
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(", ")
            .into_bytes()),
    ];
    let hops = proptest::collection::vec(
        (0_u32..1 << 24).prop_map(|bits| IpAddr::from((bits | (10 << 24)).to_be_bytes())),
        0..4,
    );
    let cases = (addresses(), written, hops, any::<bool>());
    hold("tests/fuzz/regressions/address.txt", &cases, |(sender, written, hops, port)| {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&written) {
            headers.append("x-forwarded-for", value);
        }
        // Without a proxy in front, the header is the sender's own.
        if !is_trusted(&sender.to_canonical()) {
            prop_assert_eq!(client_address(Some(sender), &headers, &trusted), Some(sender.to_canonical()));
        }
        // Each proxy adds whom it was connected from; the last one is the connection's.
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        for seen in std::iter::once(&sender).chain(&hops) {
            let text = match (port, seen) {
                (false, _) => seen.to_string(),
                (true, IpAddr::V4(address)) => format!("{address}:1234"),
                (true, IpAddr::V6(address)) => format!("[{address}]:1234"),
            };
            headers.append("x-forwarded-for", HeaderValue::from_str(&text).unwrap());
        }
        let found = client_address(Some(proxy), &headers, &trusted);
        let readable = headers.iter().all(|(_, value)| value.to_str().is_ok());
        if readable && !is_trusted(&sender.to_canonical()) {
            prop_assert_eq!(found, Some(sender.to_canonical()));
        }
        prop_assert_eq!(client_address(None, &headers, &trusted), None);
        Ok(())
    });
}
