//! What an administrator can set, and its defaults.

use crate::external::{self, address::AddressPolicy};
use crate::watch::Scope;
use anyhow::Context as _;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What every process needs to know. Each option can also be given by the environment variable that its help names.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// Address of the private listener: /healthz, /readyz and /metrics
    #[arg(long, env = "BELLHOP_PRIVATE_LISTEN", default_value = "127.0.0.1:9090")]
    pub private_listen: SocketAddr,

    /// Namespace of what the controller keeps: the installation key and what it needs to delete webhooks
    #[arg(long, env = "BELLHOP_NAMESPACE", default_value = "bellhop-system")]
    pub namespace: String,

    /// Namespace of what the controller publishes for the ingress, and of nothing else
    #[arg(long, env = "BELLHOP_INGRESS_NAMESPACE", default_value = "bellhop-ingress")]
    pub ingress_namespace: String,

    /// Namespace whose Subscriptions and WorkflowTriggers are looked after; may be repeated or separated by commas;
    /// left out: all
    #[arg(long = "watch-namespace", env = "BELLHOP_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Domain of the cluster's Services; with `localhost`, runners that are Services are reached on loopback
    #[arg(long, env = "BELLHOP_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Network that may be called although it is not a public one (CIDR); may be repeated or separated by commas
    #[arg(long = "allow-address", env = "BELLHOP_ALLOW_ADDRESSES", value_delimiter = ',')]
    pub allow_addresses: Vec<IpNet>,

    /// Origin that WorkflowTriggers may name as `runner.url`, such as https://dify.example.com; `*` as port allows
    /// every port; may be repeated or separated by commas
    #[arg(long = "allow-runner-origin", env = "BELLHOP_ALLOW_RUNNER_ORIGINS", value_delimiter = ',')]
    pub allow_runner_origins: Vec<String>,

    /// Shortest time between two changes of a Subscription's status.lastRequestTime
    #[arg(long, env = "BELLHOP_ACTIVITY_INTERVAL", default_value = "60s", value_parser = duration)]
    pub activity_interval: Duration,
}

impl Common {
    /// The namespaces whose objects are looked after.
    pub fn scope(&self) -> Scope {
        Scope::new(&self.watch_namespaces)
    }
}

/// What the controller needs to know besides.
#[derive(clap::Args, Clone, Debug)]
pub struct Controller {
    /// URL at which external systems reach the public listener, such as https://hooks.example.com
    #[arg(long, env = "BELLHOP_PUBLIC_URL", value_parser = public_url)]
    pub public_url: url::Url,

    /// Name by which this process holds the Lease that lets one controller work at a time; left out: the host's name
    /// and the address of the private listener
    #[arg(long, env = "BELLHOP_IDENTITY")]
    pub identity: Option<String>,

    /// Most Subscriptions per plugin and namespace
    #[arg(long, env = "BELLHOP_MAX_SUBSCRIPTIONS", default_value_t = 10)]
    pub max_subscriptions: u32,

    /// How long the deletion of a Subscription waits for the external system before the webhook is given up
    #[arg(long, env = "BELLHOP_DELETION_DEADLINE", default_value = "24h", value_parser = duration)]
    pub deletion_deadline: Duration,

    /// The same, in a namespace that is being deleted
    #[arg(long, env = "BELLHOP_NAMESPACE_DELETION_DEADLINE", default_value = "10m", value_parser = duration)]
    pub namespace_deletion_deadline: Duration,

    /// How often each webhook is looked at in the external system, to mend what was deleted or changed there by hand;
    /// 0s: never
    #[arg(long, env = "BELLHOP_DRIFT_INTERVAL", default_value = "1h", value_parser = duration)]
    pub drift_interval: Duration,

    /// How long an old callback secret is accepted after the external system has the new one
    #[arg(long, env = "BELLHOP_ROTATION_GRACE", default_value = "10m", value_parser = duration)]
    pub rotation_grace: Duration,

    /// File with certificates (PEM) of authorities that external systems' certificates may be signed by, in addition to
    /// the public ones; read at the start
    #[arg(long, env = "BELLHOP_EXTERNAL_CA_FILE")]
    pub external_ca_file: Option<PathBuf>,

    /// Longest time of a call to an external system, from the connection to the last byte of the answer; 1s to 60s
    #[arg(long, env = "BELLHOP_EXTERNAL_TIMEOUT", default_value = "30s", value_parser = external_timeout)]
    pub external_timeout: Duration,

    /// Most calls per second to one external system with one plugin's credentials, after a burst of two seconds' worth;
    /// 0.01 to 1000
    #[arg(long, env = "BELLHOP_EXTERNAL_CALLS_PER_SECOND", default_value_t = 10.0, value_parser = rate)]
    pub external_calls_per_second: f64,

    /// Address of the internal listener (TLS): what the API server and the ingress ask the controller
    #[arg(long, env = "BELLHOP_INTERNAL_LISTEN", default_value = "127.0.0.1:9443")]
    pub internal_listen: SocketAddr,

    /// DNS name or address under which the internal listener is reached; may be repeated or separated by commas; left
    /// out: bellhop-internal.<namespace>.svc; localhost, 127.0.0.1 and ::1 are always among them
    #[arg(long = "internal-name", env = "BELLHOP_INTERNAL_NAMES", value_delimiter = ',')]
    pub internal_names: Vec<String>,

    /// How long the authority of the internal listener's certificate is valid; a new one is made when two thirds are over
    #[arg(long, env = "BELLHOP_AUTHORITY_LIFE", default_value = "87600h", value_parser = duration)]
    pub authority_life: Duration,

    /// How long the internal listener's certificate is valid; it is renewed when two thirds are over
    #[arg(long, env = "BELLHOP_CERTIFICATE_LIFE", default_value = "2160h", value_parser = duration)]
    pub certificate_life: Duration,

    /// ValidatingWebhookConfiguration that is told the authority of the internal listener's certificate; left out: none
    #[arg(long, env = "BELLHOP_ADMISSION_CONFIGURATION")]
    pub admission_configuration: Option<String>,

    /// APIService by which the API server passes on questions about the request log, v1alpha1.log.bellhop.dev; it is told
    /// the authority of the internal listener's certificate; left out: the request log is not served
    #[arg(long, env = "BELLHOP_LOG_API_SERVICE")]
    pub log_api_service: Option<String>,

    /// Lets WorkflowTriggers have the cluster as their runner: an object is made for each event, under the rights of a
    /// ServiceAccount of their namespace that allows it
    #[arg(long, env = "BELLHOP_RESOURCE_RUNNERS", action = clap::ArgAction::SetTrue)]
    pub resource_runners: bool,

    /// Most changes a minute of status.lastRequestTime, of all Subscriptions together; 0: it is not written
    #[arg(long, env = "BELLHOP_ACTIVITY_WRITES", default_value_t = 600)]
    pub activity_writes: u32,
}

impl Controller {
    /// Name of the APIService of the request log, if it is served.
    pub fn log_api_service(&self) -> Option<&str> {
        // An environment variable that is set to nothing.
        self.log_api_service.as_deref().filter(|name| !name.is_empty())
    }

    /// What the client for external systems is made of.
    ///
    /// # Errors
    /// The file of certificates cannot be used; the message names it.
    pub fn external(&self, common: &Common) -> anyhow::Result<external::Settings> {
        let file = self.external_ca_file.as_deref();
        let authorities = file.map(external::read_authorities).transpose().context("--external-ca-file")?;
        Ok(external::Settings {
            addresses: AddressPolicy::new(common.allow_addresses.clone()),
            authorities: authorities.unwrap_or_default(),
            timeout: self.external_timeout,
            calls_per_second: self.external_calls_per_second,
        })
    }
}

/// What the ingress needs to know besides.
#[derive(clap::Args, Clone, Debug)]
pub struct Ingress {
    /// Address of the public listener, which takes the callbacks
    #[arg(long, env = "BELLHOP_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Directory of the spool; events that were accepted and not yet delivered live here
    #[arg(long, env = "BELLHOP_DATA_DIR", default_value = "/var/lib/bellhop")]
    pub data_dir: PathBuf,

    /// Largest body of a callback, in bytes
    #[arg(long, env = "BELLHOP_BODY_LIMIT", default_value_t = 5 * 1024 * 1024)]
    pub body_limit: usize,

    /// Longest time from the first byte of a callback to its last
    #[arg(long, env = "BELLHOP_REQUEST_TIMEOUT", default_value = "15s", value_parser = duration)]
    pub request_timeout: Duration,

    /// Network (CIDR) of proxies in front of the public listener that are believed when they say in X-Forwarded-For from
    /// where a request comes; may be repeated or separated by commas
    #[arg(long = "trusted-proxy", env = "BELLHOP_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,

    /// Disk space of the spool, in bytes; half of it is for events that are not yet delivered and for dead letters
    #[arg(long, env = "BELLHOP_SPOOL_BYTES", default_value_t = 2 * 1024 * 1024 * 1024)]
    pub spool_bytes: u64,

    /// Room for the undelivered events of one Subscription, in bytes; its dead letters may take half of it
    #[arg(long, env = "BELLHOP_SPOOL_BYTES_PER_SUBSCRIPTION", default_value_t = 256 * 1024 * 1024)]
    pub spool_bytes_per_subscription: u64,

    /// Age at which an undelivered event becomes a dead letter
    #[arg(long, env = "BELLHOP_MAX_EVENT_AGE", default_value = "72h", value_parser = duration)]
    pub max_event_age: Duration,

    /// How long the record of a finished event is kept; a redelivery within this time is recognised
    #[arg(long, env = "BELLHOP_RETENTION", default_value = "168h", value_parser = duration)]
    pub retention: Duration,

    /// Most finished requests that are kept of one Subscription; the oldest make room, and redeliveries of them are no
    /// longer recognised
    #[arg(long, env = "BELLHOP_LOG_REQUESTS_PER_SUBSCRIPTION", default_value_t = 50_000)]
    pub log_requests_per_subscription: usize,

    /// Most bytes of finished requests that are kept of one Subscription
    #[arg(long, env = "BELLHOP_LOG_BYTES_PER_SUBSCRIPTION", default_value_t = 256 * 1024 * 1024)]
    pub log_bytes_per_subscription: u64,
}

/// What every process that serves needs to know of its end.
#[derive(clap::Args, Clone, Debug)]
pub struct Ending {
    /// How long what others ask is still answered after SIGTERM, while /readyz says that the process ends; time for load
    /// balancers to take note
    #[arg(long, env = "BELLHOP_DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    pub drain_delay: Duration,
}

/// Options of `bellhop run`: controller and ingress in one process.
#[derive(clap::Args, Clone, Debug)]
pub struct RunOptions {
    /// What every process needs.
    #[command(flatten)]
    pub common: Common,
    /// What it needs to end.
    #[command(flatten)]
    pub ending: Ending,
    /// What the controller needs.
    #[command(flatten)]
    pub controller: Controller,
    /// What the ingress needs.
    #[command(flatten)]
    pub ingress: Ingress,
}

/// Options of `bellhop controller`.
#[derive(clap::Args, Clone, Debug)]
pub struct ControllerOptions {
    /// What every process needs.
    #[command(flatten)]
    pub common: Common,
    /// What it needs to end.
    #[command(flatten)]
    pub ending: Ending,
    /// What the controller needs.
    #[command(flatten)]
    pub controller: Controller,

    /// Headless Service of the ingress, in Bellhop's namespace, with a port named `private`: every ready endpoint of it
    /// is asked whether a callback URL is live
    #[arg(long, env = "BELLHOP_INGRESS_SERVICE")]
    pub ingress_service: String,
}

/// Options of `bellhop ingress`.
#[derive(clap::Args, Clone, Debug)]
pub struct IngressOptions {
    /// What every process needs.
    #[command(flatten)]
    pub common: Common,
    /// What it needs to end.
    #[command(flatten)]
    pub ending: Ending,
    /// What the ingress needs.
    #[command(flatten)]
    pub ingress: Ingress,

    /// URL of the controller's internal listener, such as https://bellhop-internal.bellhop-system.svc:9443; without
    /// it, there are no pages of an authorization, no captured secrets and no status.lastRequestTime
    #[arg(long, env = "BELLHOP_CONTROLLER_URL", value_parser = controller_url)]
    pub controller_url: Option<url::Url>,

    /// Address of the log listener (TLS), at which the controller asks for requests
    #[arg(long, env = "BELLHOP_LOG_ADDRESS", default_value = "127.0.0.1:9444")]
    pub log_address: SocketAddr,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Readable on a terminal, JSON otherwise
    #[default]
    Auto,
    /// Readable
    Text,
    /// One JSON object a line
    Json,
}

fn public_url(text: &str) -> Result<url::Url, String> {
    let url: url::Url =
        text.parse().map_err(|error| format!("{error}; expected something like https://hooks.example.com"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("expected a URL with http or https and a host".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected a URL without query and fragment".to_owned());
    }
    Ok(url)
}

fn controller_url(text: &str) -> Result<url::Url, String> {
    let example = "expected something like https://bellhop-internal.bellhop-system.svc:9443";
    let url: url::Url = text.parse().map_err(|error| format!("{error}; {example}"))?;
    match url.scheme() == "https" && url.path() == "/" && url.query().is_none() && url.fragment().is_none() {
        true => Ok(url),
        false => Err(example.to_owned()),
    }
}

/// Reads a duration such as `90s`, `10m` or `24h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<kube::core::Duration>()
        .map(Duration::from)
        .map_err(|error| format!("{error}; expected something like 90s, 10m or 24h"))
}

fn external_timeout(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(60);
    if allowed.contains(&time) { Ok(time) } else { Err("expected something from 1s to 60s".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let allowed = 0.01..=1000.0;
    match text.parse() {
        Ok(rate) if allowed.contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.01 to 1000, such as 10 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        controller: Controller,
    }

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["bellhop", "--public-url=https://hooks.example.com"], args].concat())
    }

    #[test]
    fn limits_of_external_calls_are_within_bounds() {
        let cli = parse(&[]).unwrap();
        let settings = cli.controller.external(&cli.common).unwrap();
        assert_eq!((settings.timeout, settings.calls_per_second), (Duration::from_secs(30), 10.0));
        assert!(settings.authorities.is_empty());
        let cli = parse(&["--external-timeout=2s", "--external-calls-per-second=0.5"]).unwrap();
        let settings = cli.controller.external(&cli.common).unwrap();
        assert_eq!((settings.timeout, settings.calls_per_second), (Duration::from_secs(2), 0.5));
        for wrong in ["--external-timeout=61s", "--external-timeout=0s", "--external-timeout=30"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "NaN", "inf", "1001", "many"] {
            let why = parse(&[&format!("--external-calls-per-second={wrong}")]).map(drop).unwrap_err().to_string();
            assert!(why.contains("0.01 to 1000"), "{why}");
        }
    }

    #[test]
    fn a_file_of_authorities_that_is_missing_is_named_with_its_option() {
        let cli = parse(&["--external-ca-file=/no/such/ca.pem"]).unwrap();
        let why = format!("{:#}", cli.controller.external(&cli.common).unwrap_err());
        assert!(why.starts_with("--external-ca-file: /no/such/ca.pem cannot be read"), "{why}");
    }
}
