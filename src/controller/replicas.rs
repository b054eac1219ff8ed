//! Whether the ingress serves a route, wherever it runs.

use crate::api::{PREFER, PublishedRoute, RouteVersion};
use crate::routes;
use crate::telemetry::Metrics;
use futures::StreamExt;
use futures::future::join_all;
use http::StatusCode;
use http::header::IF_MATCH;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long an ingress may take to serve a route that was published.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one question may take besides the time that it asks the ingress to wait.
const ANSWER: Duration = Duration::from_secs(3);
/// Name of the port of the private listener.
const PORT: &str = "private";
/// Name of the port at which a replica tells its request log.
const LOG_PORT: &str = "log";
/// Label of an EndpointSlice with the name of its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The replicas of the ingress. Clones are the same.
#[derive(Clone)]
pub enum Replicas {
    /// The one in this process.
    Here(routes::Handle),
    /// The ready endpoints of a Service.
    Service(Service),
}

impl Replicas {
    /// Whether every ready replica serves the route now.
    pub async fn serve(&self, route: &PublishedRoute) -> bool {
        match self {
            Replicas::Here(routes) => routes.serves(&route.version()),
            Replicas::Service(service) => service.ask(&route.version(), Duration::ZERO).await.is_ok(),
        }
    }

    /// Waits until every ready replica serves the route, ten seconds at most.
    ///
    /// # Errors
    /// A line for people that says which does not.
    pub async fn confirmed(&self, route: &PublishedRoute) -> Result<(), String> {
        let version = route.version();
        match self {
            Replicas::Here(routes) => tokio::time::timeout(PATIENCE, routes.confirmed(&version))
                .await
                .map_err(|_| "the ingress does not serve the callback URL yet; see its log".to_owned()),
            Replicas::Service(service) => service.confirmed(&version).await,
        }
    }
}

/// The ingress replicas behind a headless Service.
#[derive(Clone)]
pub struct Service {
    name: String,
    slices: Store<EndpointSlice>,
    changes: watch::Receiver<()>,
    http: reqwest::Client,
}

impl Service {
    /// Follows the endpoints of the Service `name` in `namespace` until `shutdown`.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn follow(
        client: kube::Client,
        namespace: &str,
        name: &str,
        metrics: &Metrics,
        shutdown: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        let (slices, writer) = reflector::store();
        let (changed, changes) = watch::channel(());
        let config = watcher::Config::default().labels(&format!("{SERVICE_LABEL}={name}"));
        let api = Api::<EndpointSlice>::namespaced(client, namespace);
        let events = crate::watch::watch(vec![api], &config, "EndpointSlice", metrics);
        let mut events = events.map(Ok::<_, watcher::Error>).reflect(writer).boxed();
        tokio::spawn(async move {
            let follow = async {
                while events.next().await.is_some() {
                    changed.send_replace(());
                }
            };
            tokio::select! {
                () = follow => {}
                () = shutdown.cancelled() => {}
            }
        });
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build()?;
        Ok(Self { name: name.to_owned(), slices, changes, http })
    }

    /// Of every endpoint, whether it is ready or not: the number of its replica, and the address at which it tells its
    /// request log, if it can be asked.
    pub fn log_listeners(&self) -> Vec<(String, Option<SocketAddr>)> {
        let slices = self.slices.state();
        log_listeners(slices.iter().map(|slice| &**slice))
    }

    /// Changes whenever endpoints may have come or gone.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    async fn confirmed(&self, version: &RouteVersion) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let Err(why) = self.ask(version, left).await else { return Ok(()) };
            // A replica that could not be reached may be about to leave the Service, or another to join it.
            let again = tokio::time::timeout_at(deadline, changes.changed()).await;
            if !matches!(again, Ok(Ok(()))) {
                return Err(why);
            }
        }
    }

    /// Asks every ready replica, which may take the time `wait` to get there.
    async fn ask(&self, version: &RouteVersion, wait: Duration) -> Result<(), String> {
        let slices = self.slices.state();
        let replicas = ready(slices.iter().map(|slice| &**slice));
        if replicas.is_empty() {
            return Err(format!("no replica of the ingress (Service {}) is ready", self.name));
        }
        let answers = replicas.into_iter().map(|address| self.ask_one(address, version, wait));
        join_all(answers).await.into_iter().collect()
    }

    async fn ask_one(&self, address: SocketAddr, version: &RouteVersion, wait: Duration) -> Result<(), String> {
        let request = self
            .http
            .get(format!("http://{address}/routes/{}", version.uid))
            .header(IF_MATCH, format!("\"{}\"", version.digest))
            .header(PREFER, format!("wait={}", wait.as_secs()))
            .timeout(wait + ANSWER);
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::NO_CONTENT) => Ok(()),
            Ok(StatusCode::PRECONDITION_FAILED) => {
                Err(format!("the ingress at {address} does not serve the callback URL yet; see its log"))
            }
            Ok(status) => Err(format!("the ingress at {address} answered {status} instead of 204 or 412")),
            Err(_) => Err(format!("the ingress at {address} is ready but cannot be reached by the controller")),
        }
    }
}

/// A Service whose log listeners are at these addresses; the first is replica 0. What comes second has to be kept.
#[cfg(test)]
pub fn log_service_for_tests(addresses: &[SocketAddr]) -> (Service, reflector::store::Writer<EndpointSlice>) {
    let (slices, mut writer) = reflector::store();
    for (number, address) in addresses.iter().enumerate() {
        let slice = serde_json::json!({
            "metadata": {"name": format!("slice-{number}")}, "addressType": "IPv4",
            "ports": [{"name": LOG_PORT, "port": address.port()}],
            "endpoints": [{"addresses": [address.ip()], "targetRef": {"name": format!("ingress-{number}")}}],
        });
        writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(slice).expect("a slice")));
    }
    let http = reqwest::Client::new();
    (Service { name: "ingress".to_owned(), slices, changes: watch::channel(()).1, http }, writer)
}

/// The addresses of the private listeners of the ready endpoints.
fn ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> BTreeSet<SocketAddr> {
    let mut addresses = BTreeSet::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let named = ports.find(|port| port.name.as_deref() == Some(PORT));
        let Some(port) = named.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in &slice.endpoints {
            // Nothing said is ready, as the API has it.
            let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            let ip = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            addresses.extend(ip.filter(|_| is_ready).map(|ip| SocketAddr::new(ip, port)));
        }
    }
    addresses
}

/// A replica's number is that of its pod, which a StatefulSet gives; it is the first part of the names of its requests.
fn log_listeners<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<(String, Option<SocketAddr>)> {
    // Of a Service with addresses of two families, there are slices for each.
    let mut listeners = BTreeMap::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let named = ports.find(|port| port.name.as_deref() == Some(LOG_PORT));
        let Some(port) = named.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
            let number = pod.and_then(|pod| pod.rsplit('-').next()).and_then(|number| number.parse::<u32>().ok());
            let Some(number) = number else { continue };
            // One that ends is not ready, and still tells what it has.
            let conditions = endpoint.conditions.as_ref();
            let is_there = conditions.and_then(|conditions| conditions.serving.or(conditions.ready)).unwrap_or(true);
            let ip = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            let address = ip.filter(|_| is_there).map(|ip| SocketAddr::new(ip, port));
            let known = listeners.entry(number).or_insert(address);
            *known = known.or(address);
        }
    }
    listeners.into_iter().map(|(number, address)| (number.to_string(), address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_replica_that_cannot_be_asked_is_known_all_the_same() {
        let slice = json!({
            "addressType": "IPv4", "ports": [{"name": "private", "port": 9090}, {"name": "log", "port": 9444}],
            "endpoints": [
                {"addresses": ["10.1.0.3"], "targetRef": {"kind": "Pod", "name": "bellhop-ingress-10"}},
                {"addresses": ["10.1.0.1"], "targetRef": {"kind": "Pod", "name": "bellhop-ingress-0"},
                 "conditions": {"ready": false, "serving": true}},
                {"addresses": ["10.1.0.2"], "targetRef": {"kind": "Pod", "name": "bellhop-ingress-1"},
                 "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.1.0.4"]},
            ],
        });
        let slices = [serde_json::from_value::<EndpointSlice>(slice).unwrap()];
        let address = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        let expected = [("0", address("10.1.0.1:9444")), ("1", None), ("10", address("10.1.0.3:9444"))];
        assert_eq!(log_listeners(slices.iter()), expected.map(|(number, address)| (number.to_owned(), address)));
    }

    #[test]
    fn only_ready_endpoints_with_the_named_port_are_asked() {
        let slice = |ports: serde_json::Value| {
            serde_json::from_value::<EndpointSlice>(json!({
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [
                    {"addresses": ["10.1.0.1"], "conditions": {"ready": true}},
                    {"addresses": ["10.1.0.2"], "conditions": {"ready": false, "serving": true}},
                    {"addresses": ["10.1.0.3"]},
                ],
            }))
            .unwrap()
        };
        let slices = [slice(json!([{"name": "http", "port": 8080}, {"name": "private", "port": 9090}]))];
        let found: Vec<_> = ready(slices.iter()).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.1.0.1:9090", "10.1.0.3:9090"]);
        assert!(ready([slice(json!([{"name": "http", "port": 8080}]))].iter()).is_empty());
    }

    /// A replica on loopback that serves nothing but this route, and its address.
    async fn replica(route: Option<PublishedRoute>) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = route.map(|route| format!("\"{}\"", route.version().digest));
        let answer = async move |headers: http::HeaderMap| match known {
            Some(known) if headers[IF_MATCH] == known => StatusCode::NO_CONTENT,
            _ => StatusCode::PRECONDITION_FAILED,
        };
        let router = axum::Router::new().route("/routes/{uid}", axum::routing::get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn service(addresses: &[SocketAddr]) -> (Service, reflector::store::Writer<EndpointSlice>) {
        let (slices, mut writer) = reflector::store();
        for (number, address) in addresses.iter().enumerate() {
            let slice = json!({
                "metadata": {"name": format!("slice-{number}")}, "addressType": "IPv4",
                "ports": [{"name": PORT, "port": address.port()}], "endpoints": [{"addresses": [address.ip()]}],
            });
            writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(slice).unwrap()));
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        (Service { name: "ingress".to_owned(), slices, changes: watch::channel(()).1, http }, writer)
    }

    #[tokio::test]
    async fn every_ready_replica_has_to_serve_the_route() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let route = crate::routes::tests::published(1);
        let (with, without) = (replica(Some(route.clone())).await, replica(None).await);
        let asked = async |addresses: &[SocketAddr]| {
            let (service, _writer) = service(addresses);
            service.confirmed(&route.version()).await
        };
        assert_eq!(asked(&[with]).await, Ok(()));
        let missing = asked(&[with, without]).await.unwrap_err();
        assert!(missing.contains(&without.to_string()) && missing.contains("does not serve"), "{missing}");
        let none = asked(&[]).await.unwrap_err();
        assert!(none.contains("no replica of the ingress (Service ingress) is ready"), "{none}");
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let unreachable = asked(&[with, nobody]).await.unwrap_err();
        assert!(unreachable.contains("127.0.0.1:1 is ready but cannot be reached"), "{unreachable}");
    }
}
