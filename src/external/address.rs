//! Which addresses may be called.
//!
//! A URL that a user chose must not make Bellhop call what only Bellhop can reach: its own loopback, the metadata
//! service of the cloud, another network. The address that is checked is the one that is connected to, because the
//! check sits in the resolver of the HTTP client; literal addresses in URLs are checked before the call.

use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

/// What kind of peer is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// An external system: only public addresses.
    Public,
    /// A runner: also the private networks, where clusters live.
    Cluster,
}

/// Networks that are never called unless the administrator allows them.
/// IANA special-purpose registries (RFC 6890), as far as they can name a host.
static NEVER: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    nets(&[
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.0.2.0/24",
        // Deprecated relays of 6to4 (RFC 7526).
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "100::/64",
        "fe80::/10",
        // Site-local, deprecated (RFC 3879).
        "fec0::/10",
        "ff00::/8",
        // Protocol assignments (RFC 2928), Teredo among them, which embeds an IPv4 address.
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        // NAT64 prefixes of the local network (RFC 8215); what they embed depends on it.
        "64:ff9b:1::/48",
        // Metadata services that are not link-local: AWS and Google Cloud on IPv6, Alibaba Cloud, and Azure's, which has
        // a public address.
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "100.100.100.200/32",
        "168.63.129.16/32",
    ])
});

/// Networks inside an organisation: runners live there, external systems need the administrator's word.
static PRIVATE: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| nets(&["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]));

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("the table is well formed")).collect()
}

/// The administrator's exceptions, and the rule that they are exceptions to.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Arc<[IpNet]>,
}

impl AddressPolicy {
    /// A policy with these networks allowed in addition.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether `address` may be called.
    ///
    /// # Errors
    /// A sentence that names the address and the option that would allow it.
    pub fn check(&self, address: IpAddr, reach: Reach) -> Result<(), String> {
        let address = embedded_v4(address);
        let inside = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        if inside(&self.allowed) {
            return Ok(());
        }
        if inside(&NEVER) || (reach == Reach::Public && inside(&PRIVATE)) {
            return Err(format!(
                "the address {address} is not a public one; an administrator can allow it with --allow-address"
            ));
        }
        Ok(())
    }

    /// Checks the host of a URL where it is a literal address; names are checked when they are resolved.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_literal(&self, url: &url::Url, reach: Reach) -> Result<(), String> {
        match url.host() {
            Some(url::Host::Ipv4(address)) => self.check(address.into(), reach),
            Some(url::Host::Ipv6(address)) => self.check(address.into(), reach),
            _ => Ok(()),
        }
    }

    /// A resolver that gives only addresses which may be called.
    pub fn resolver(&self, reach: Reach) -> Arc<dyn Resolve> {
        self.resolver_with(reach, Arc::new(|host| Box::pin(system_lookup(host))))
    }

    /// The same, with another source of answers than the system's resolver.
    pub(super) fn resolver_with(&self, reach: Reach, lookup: Lookup) -> Arc<dyn Resolve> {
        Arc::new(CheckedResolver { policy: self.clone(), reach, lookup })
    }
}

/// An IPv4 address that is written inside an IPv6 one is the address that a packet ends at.
fn embedded_v4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let last = || Ipv4Addr::from((u32::from(segments[6]) << 16) | u32::from(segments[7]));
    match segments {
        // v4-mapped (RFC 4291), v4-translated (RFC 2765), NAT64 (RFC 6052), v4-compatible (deprecated in RFC 4291)
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => last().into(),
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => last().into(),
        // 6to4 (RFC 3056)
        [0x2002, high, low, ..] => Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into(),
        _ => address,
    }
}

/// Gives the addresses of a host.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

async fn system_lookup(host: String) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.collect())
}

struct CheckedResolver {
    policy: AddressPolicy,
    reach: Reach,
    lookup: Lookup,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, reach, lookup) = (self.policy.clone(), self.reach, self.lookup.clone());
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = if is_localhost(host) {
                // RFC 6761, section 6.3: such names mean the loopback interface, whatever a name server says.
                vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()]
            } else {
                lookup(host.to_owned()).await?
            };
            let mut refusal = format!("the name {host} has no address");
            let mut usable = Vec::with_capacity(found.len());
            for address in found {
                match policy.check(address.ip(), reach) {
                    Ok(()) => usable.push(address),
                    Err(why) => refusal = format!("{host}: {why}"),
                }
            }
            if usable.is_empty() {
                return Err(refusal.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_external_systems() {
        let policy = AddressPolicy::default();
        for refused in [
            "127.0.0.1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "::127.0.0.1",
            "::1",
            "::",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd00:ec2::254",
            "fe80::1",
            "224.0.0.1",
        ] {
            let address: IpAddr = refused.parse().unwrap();
            let why = policy.check(address, Reach::Public).unwrap_err();
            assert!(why.contains("--allow-address"), "{why}");
        }
        for allowed in ["140.82.112.3", "2606:50c0:8000::154", "172.32.0.1"] {
            policy.check(allowed.parse().unwrap(), Reach::Public).unwrap();
        }
    }

    #[test]
    fn runners_may_live_in_private_networks_but_not_on_loopback_or_metadata() {
        let policy = AddressPolicy::default();
        policy.check("10.96.0.10".parse().unwrap(), Reach::Cluster).unwrap();
        for refused in ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "fd00:ec2::254"] {
            policy.check(refused.parse().unwrap(), Reach::Cluster).unwrap_err();
        }
    }

    #[test]
    fn the_administrator_can_allow_networks() {
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        policy.check("127.0.0.1".parse().unwrap(), Reach::Public).unwrap();
        policy.check("::ffff:127.0.0.1".parse().unwrap(), Reach::Public).unwrap();
        policy.check("169.254.169.254".parse().unwrap(), Reach::Public).unwrap_err();
    }

    #[test]
    fn literal_addresses_in_urls_are_checked_in_every_spelling() {
        let policy = AddressPolicy::default();
        for url in ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::ffff:7f00:1]/"] {
            policy.check_literal(&url.parse().unwrap(), Reach::Public).unwrap_err();
        }
    }

    #[tokio::test]
    async fn names_are_checked_when_they_are_resolved() {
        let resolve = |policy: AddressPolicy| async move {
            let name: Name = "runner.team-a.svc.localhost".parse().unwrap();
            policy.resolver(Reach::Cluster).resolve(name).await.map(|found| found.collect::<Vec<_>>())
        };
        let refused = resolve(AddressPolicy::default()).await.expect_err("loopback is refused").to_string();
        assert!(refused.contains("--allow-address"), "{refused}");
        let found =
            resolve(AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()])).await.expect("loopback is allowed");
        assert_eq!(found, vec!["127.0.0.1:0".parse().unwrap()]);
    }
}
