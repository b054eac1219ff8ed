//! Logs and metrics.
//!
//! Every series that Bellhop exports. No series is labelled by an object that users create: the only names in labels
//! are those of TriggerPlugins, which the administrator installs.
//!
//! | Series | Type | Labels | Meaning |
//! |---|---|---|---|
//! | `bellhop_requests_total` | counter | `plugin`, `answer` | requests at callback URLs; `plugin` is empty if the URL is unknown; `answer` is one of [`Answer`] |
//! | `bellhop_request_duration_seconds` | histogram | | from the last header of a request to its answer; to the disk, where the plugin has a say in the answer |
//! | `bellhop_connections` | gauge | | open connections at the public listener |
//! | `bellhop_body_bytes` | gauge | | memory reserved for bodies that are being received or stored |
//! | `bellhop_routes` | gauge | | callback URLs that are served |
//! | `bellhop_routes_unserved` | gauge | | published routes whose plugin is missing or invalid; they answer 404 |
//! | `bellhop_plugins_invalid` | gauge | | TriggerPlugins that do not compile |
//! | `bellhop_triggers_invalid` | gauge | | WorkflowTriggers that do not fit their plugin; they never fire |
//! | `bellhop_spool_bytes` | gauge | | bytes of undelivered requests and dead letters in the spool |
//! | `bellhop_spool_limit_bytes` | gauge | | bytes that undelivered requests and dead letters may take |
//! | `bellhop_spool_unmatched` | gauge | | requests that wait for the matcher |
//! | `bellhop_spool_pending` | gauge | | requests with deliveries that wait or are being attempted |
//! | `bellhop_spool_dead` | gauge | | requests that are dead letters |
//! | `bellhop_deliveries_total` | counter | `outcome` | attempts by outcome: `delivered`, `retried`, `dead` |
//! | `bellhop_delivery_attempt_seconds` | histogram | | duration of one attempt |
//! | `bellhop_delivery_delay_seconds` | histogram | | from the acceptance of a request to its delivery |
//! | `bellhop_runner_circuits_open` | gauge | | runners that are left alone because they do not answer, counted for each workspace that calls them |
//! | `bellhop_requests_waiting` | gauge | | requests whose senders wait for a runner's answer |
//! | `bellhop_reconciles_total` | counter | `kind`, `outcome` | reconciliations |
//! | `bellhop_external_calls_total` | counter | `plugin`, `call`, `status` | calls to external systems; `call` is a field of `webhook`, such as `create`, or what is asked of OAuth: `oauth2.code`, `oauth2.refresh`, `oauth2.clientCredentials`, `oauth2.revoke`; `status` is `2xx` to `5xx`, `other`, or `none` without an answer |
//! | `bellhop_admissions_total` | counter | `kind`, `outcome` | objects that the API server asked about, by [`Admitted`] |
//! | `bellhop_subscriptions` | gauge | `plugin`, `reason` | Subscriptions by the reason of their condition `Ready`; `Ready` itself if it is true; only of the controller that holds the Lease |
//! | `bellhop_subscriptions_expiring` | gauge | `plugin`, `reason` | Subscriptions by the reason of their condition `Expiring`, if it is true: something ends soon and could not be renewed; only of the controller that holds the Lease |
//! | `bellhop_webhook_expiry_timestamp_seconds` | gauge | `plugin` | when the first of the webhooks of a plugin ends, in seconds since the Unix epoch; absent where none ends; only of the controller that holds the Lease |
//! | `bellhop_orphaned_webhooks` | gauge | | webhooks that were given up and may stay in an external system; only of the controller that holds the Lease |
//! | `bellhop_leader` | gauge | | 1 in the controller that holds the Lease |
//! | `bellhop_watch_errors_total` | counter | `kind` | times that a kind could not be followed; what is known stays in force meanwhile |

use crate::config::LogFormat;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not one.
    #[error("log filter: {0}; expected something like info or info,bellhop=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was set up before.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Starts writing log lines to standard error.
///
/// `filter` has the syntax of `RUST_LOG`, such as `info,bellhop=debug`.
///
/// # Errors
/// If the filter is malformed, or logging was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), InitError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(filter)?).with_writer(std::io::stderr);
    if json {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()?;
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?;
    }
    Ok(())
}

/// How a request at a callback URL was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// 200: it is on disk.
    Accepted,
    /// 200: it was on disk already.
    Duplicate,
    /// 200: it was a dead letter and is tried again.
    Requeued,
    /// 200, as a runner says: it is on disk.
    Answered,
    /// 200 to 299, as the plugin says: it is on disk.
    Default,
    /// 200 to 299, as the plugin says: a handshake, which is no event and not stored.
    Handshake,
    /// 503: the secret that a handshake brings could not be handed to the controller, or the one that would prove a request
    /// has still to be told, or the public keys have still to be fetched.
    Uncaptured,
    /// 404: no such callback URL.
    UnknownRoute,
    /// 401: nothing proves who sent it.
    Unverified,
    /// 400: the body is not what the plugin reads, or the sender stopped in the middle.
    BadBody,
    /// 413: the body is larger than the limit.
    TooLarge,
    /// 408: the body took too long.
    Timeout,
    /// 415: the body is compressed.
    Encoding,
    /// 503: the routes are not known yet.
    NotSynced,
    /// 503: the bodies in flight fill the memory that is set aside for them.
    Busy,
    /// 503: the spool, or the share of this Subscription, is full.
    SpoolFull,
    /// 503: the spool could not write.
    SpoolFailed,
    /// 500: a defect.
    Panicked,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Answer::Accepted => "accepted",
            Answer::Duplicate => "duplicate",
            Answer::Requeued => "requeued",
            Answer::Answered => "answered",
            Answer::Default => "default",
            Answer::Handshake => "handshake",
            Answer::Uncaptured => "uncaptured",
            Answer::UnknownRoute => "unknown_route",
            Answer::Unverified => "unverified",
            Answer::BadBody => "bad_body",
            Answer::TooLarge => "too_large",
            Answer::Timeout => "timeout",
            Answer::Encoding => "encoding",
            Answer::NotSynced => "not_synced",
            Answer::Busy => "busy",
            Answer::SpoolFull => "spool_full",
            Answer::SpoolFailed => "spool_failed",
            Answer::Panicked => "panicked",
        }
    }
}

impl EncodeLabelValue for Answer {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

/// A label's value that is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Text(Arc<str>);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    plugin: Text,
    answer: Answer,
}

/// What an attempt to deliver led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
enum Outcome {
    delivered,
    retried,
    dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// What was said of an object at admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admitted {
    /// It was let in, and nothing was said.
    Allowed,
    /// It was let in with a warning.
    Warned,
    /// It was not let in.
    Refused,
    /// It was let in because it could not be judged, or not in time.
    Unjudged,
}

impl EncodeLabelValue for Admitted {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Admitted::Allowed => "allowed",
            Admitted::Warned => "warned",
            Admitted::Refused => "refused",
            Admitted::Unjudged => "unjudged",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionLabels {
    kind: &'static str,
    outcome: Admitted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    plugin: String,
    call: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubscriptionLabels {
    plugin: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// Brings numbers up to date that are read from somewhere else.
type Reading = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// The metrics of this process. Clones share the same numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_duration: Histogram,
    connections: Gauge,
    body_bytes: Gauge,
    routes: Gauge,
    routes_unserved: Gauge,
    plugins_invalid: Gauge,
    triggers_invalid: Gauge,
    spool_bytes: Gauge,
    spool_unmatched: Gauge,
    spool_pending: Gauge,
    spool_dead: Gauge,
    deliveries: Family<DeliveryLabels, Counter>,
    attempt_duration: Histogram,
    delivery_delay: Histogram,
    circuits_open: Gauge,
    requests_waiting: Gauge,
    reconciles: Family<ReconcileLabels, Counter>,
    external_calls: Family<CallLabels, Counter>,
    admissions: Family<AdmissionLabels, Counter>,
    spool_limit_bytes: Gauge,
    subscriptions: Family<SubscriptionLabels, Gauge>,
    subscriptions_expiring: Family<SubscriptionLabels, Gauge>,
    webhook_expiry: Family<PluginLabels, Gauge>,
    orphaned_webhooks: Gauge,
    leader: Gauge,
    watch_errors: Family<KindLabels, Counter>,
    readings: Mutex<BTreeMap<&'static str, Reading>>,
}

const FAST: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const SLOW: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0];

impl Metrics {
    /// A fresh set of metrics in a registry of its own.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("bellhop");
        let r = &mut registry;
        let inner = Inner {
            requests: add(r, "requests", "Requests at callback URLs", Family::default()),
            request_duration: add_seconds(r, "request_duration", "From the last header to the answer", &FAST),
            connections: add(r, "connections", "Open connections at the public listener", Gauge::default()),
            body_bytes: add(r, "body_bytes", "Memory reserved for bodies in flight", Gauge::default()),
            routes: add(r, "routes", "Callback URLs that are served", Gauge::default()),
            routes_unserved: add(r, "routes_unserved", "Routes without a valid plugin", Gauge::default()),
            plugins_invalid: add(r, "plugins_invalid", "TriggerPlugins that do not compile", Gauge::default()),
            triggers_invalid: add(r, "triggers_invalid", "WorkflowTriggers that do not fit", Gauge::default()),
            spool_bytes: add(r, "spool_bytes", "Bytes of undelivered requests and dead letters", Gauge::default()),
            spool_unmatched: add(r, "spool_unmatched", "Requests that wait for the matcher", Gauge::default()),
            spool_pending: add(r, "spool_pending", "Requests with pending deliveries", Gauge::default()),
            spool_dead: add(r, "spool_dead", "Requests that are dead letters", Gauge::default()),
            deliveries: add(r, "deliveries", "Attempts to deliver by outcome", Family::default()),
            attempt_duration: add_seconds(r, "delivery_attempt", "Duration of one attempt", &SLOW),
            delivery_delay: add_seconds(r, "delivery_delay", "From acceptance to delivery", &SLOW),
            circuits_open: add(r, "runner_circuits_open", "Runners that do not answer", Gauge::default()),
            requests_waiting: add(r, "requests_waiting", "Senders that wait for a runner", Gauge::default()),
            reconciles: add(r, "reconciles", "Reconciliations", Family::default()),
            external_calls: add(r, "external_calls", "Calls to external systems", Family::default()),
            admissions: add(r, "admissions", "Objects that the API server asked about", Family::default()),
            spool_limit_bytes: add(r, "spool_limit_bytes", "Room for them, in bytes", Gauge::default()),
            subscriptions: add(r, "subscriptions", "Subscriptions by the reason of Ready", Family::default()),
            subscriptions_expiring: add(
                r,
                "subscriptions_expiring",
                "Subscriptions that are not renewed",
                Family::default(),
            ),
            webhook_expiry: add_with_unit(r, "webhook_expiry_timestamp", "When the first webhook ends", Unit::Seconds),
            orphaned_webhooks: add(r, "orphaned_webhooks", "Webhooks that were given up", Gauge::default()),
            leader: add(r, "leader", "Whether this controller holds the Lease", Gauge::default()),
            watch_errors: add(r, "watch_errors", "Times that a kind could not be followed", Family::default()),
            readings: Mutex::default(),
            registry,
        };
        Self(Arc::new(inner))
    }

    /// Counts one answer at a callback URL. `plugin` is empty if the URL is unknown.
    pub fn request(&self, plugin: &Arc<str>, answer: Answer, duration: Duration) {
        self.0.requests.get_or_create(&RequestLabels { plugin: Text(plugin.clone()), answer }).inc();
        self.0.request_duration.observe(duration.as_secs_f64());
    }

    /// Sets the number of open connections at the public listener.
    pub fn connections(&self, open: usize) {
        self.0.connections.set(integer(open));
    }

    /// Sets the memory that is reserved for bodies in flight, in bytes.
    pub fn body_bytes(&self, bytes: usize) {
        self.0.body_bytes.set(integer(bytes));
    }

    /// Sets the size of the route table.
    pub fn routes(&self, served: usize, unserved: usize, plugins_invalid: usize, triggers_invalid: usize) {
        self.0.routes.set(integer(served));
        self.0.routes_unserved.set(integer(unserved));
        self.0.plugins_invalid.set(integer(plugins_invalid));
        self.0.triggers_invalid.set(integer(triggers_invalid));
    }

    /// Sets what the spool holds: bytes (and how many it may hold), requests that wait for the matcher, with pending
    /// deliveries, and dead letters.
    pub fn spool(&self, bytes: u64, limit: u64, unmatched: u64, pending: u64, dead: u64) {
        self.0.spool_limit_bytes.set(integer(limit));
        self.0.spool_bytes.set(integer(bytes));
        self.0.spool_unmatched.set(integer(unmatched));
        self.0.spool_pending.set(integer(pending));
        self.0.spool_dead.set(integer(dead));
    }

    /// Counts a delivery that the runner took, `delay` after its request was accepted.
    pub fn delivered(&self, attempt: Duration, delay: Duration) {
        self.0.deliveries.get_or_create(&DeliveryLabels { outcome: Outcome::delivered }).inc();
        self.0.attempt_duration.observe(attempt.as_secs_f64());
        self.0.delivery_delay.observe(delay.as_secs_f64());
    }

    /// Counts an attempt that will be followed by another.
    pub fn delivery_retried(&self, attempt: Duration) {
        self.0.deliveries.get_or_create(&DeliveryLabels { outcome: Outcome::retried }).inc();
        self.0.attempt_duration.observe(attempt.as_secs_f64());
    }

    /// Counts a delivery that became a dead letter.
    pub fn delivery_dead(&self) {
        self.0.deliveries.get_or_create(&DeliveryLabels { outcome: Outcome::dead }).inc();
    }

    /// Sets how many runners are left alone because they do not answer.
    pub fn circuits_open(&self, open: usize) {
        self.0.circuits_open.set(integer(open));
    }

    /// Sets the number of requests whose senders wait for a runner's answer.
    pub fn requests_waiting(&self, waiting: usize) {
        self.0.requests_waiting.set(integer(waiting));
    }

    /// Counts a reconciliation of an object of this kind.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str) {
        self.0.reconciles.get_or_create(&ReconcileLabels { kind, outcome }).inc();
    }

    /// Counts a call to an external system. `call` is the field of `webhook` that it carries out, such as `create`, or what
    /// is asked of OAuth, such as `oauth2.refresh`; without a status there was no answer.
    pub fn external_call(&self, plugin: &str, call: &'static str, status: Option<u16>) {
        let status = match status.map(|status| status / 100) {
            Some(2) => "2xx",
            Some(3) => "3xx",
            Some(4) => "4xx",
            Some(5) => "5xx",
            Some(_) => "other",
            None => "none",
        };
        self.0.external_calls.get_or_create(&CallLabels { plugin: plugin.to_owned(), call, status }).inc();
    }

    /// Counts an answer at admission about an object of this kind.
    pub fn admission(&self, kind: &'static str, outcome: Admitted) {
        self.0.admissions.get_or_create(&AdmissionLabels { kind, outcome }).inc();
    }

    /// Sets the number of Subscriptions by plugin and reason of their condition `Ready`.
    pub fn subscriptions(&self, counts: BTreeMap<(String, String), usize>) {
        self.0.subscriptions.clear();
        for ((plugin, reason), count) in counts {
            self.0.subscriptions.get_or_create(&SubscriptionLabels { plugin, reason }).set(integer(count));
        }
    }

    /// Sets the number of Subscriptions that are not renewed in time, by plugin and reason of their condition `Expiring`.
    pub fn subscriptions_expiring(&self, counts: BTreeMap<(String, String), usize>) {
        self.0.subscriptions_expiring.clear();
        for ((plugin, reason), count) in counts {
            self.0.subscriptions_expiring.get_or_create(&SubscriptionLabels { plugin, reason }).set(integer(count));
        }
    }

    /// Sets when the first of the webhooks of each plugin ends, in seconds since the Unix epoch.
    pub fn webhook_expiry(&self, ends: BTreeMap<String, i64>) {
        self.0.webhook_expiry.clear();
        for (plugin, end) in ends {
            self.0.webhook_expiry.get_or_create(&PluginLabels { plugin }).set(end);
        }
    }

    /// Sets the number of webhooks that were given up.
    pub fn orphaned_webhooks(&self, count: usize) {
        self.0.orphaned_webhooks.set(integer(count));
    }

    /// Says whether this controller holds the Lease.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// Counts that a kind could not be followed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.0.watch_errors.get_or_create(&KindLabels { kind }).inc();
    }

    /// Has `reading` called before each export, instead of one that was given under the same name before.
    pub fn before_export(&self, name: &'static str, reading: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.readings().insert(name, Arc::new(reading));
    }

    /// Ends what [`Metrics::before_export`] began.
    pub fn forget_reading(&self, name: &'static str) {
        self.readings().remove(name);
    }

    fn readings(&self) -> MutexGuard<'_, BTreeMap<&'static str, Reading>> {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All series in the OpenMetrics text format, whose content type is [`Metrics::CONTENT_TYPE`].
    pub fn to_text(&self) -> String {
        let readings: Vec<_> = self.readings().values().cloned().collect();
        readings.iter().for_each(|reading| reading(self));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.0.registry);
        text
    }

    /// Content type of [`Metrics::to_text`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn add<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

fn add_seconds(registry: &mut Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let histogram = Histogram::new(buckets.iter().copied());
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

fn add_with_unit(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> Family<PluginLabels, Gauge> {
    let family = Family::default();
    registry.register_with_unit(name, help, unit, Family::clone(&family));
    family
}

fn integer(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_series_is_exported_and_no_other() {
        let metrics = Metrics::new();
        metrics.request(&"gitea".into(), Answer::Accepted, Duration::from_millis(2));
        metrics.delivered(Duration::ZERO, Duration::ZERO);
        metrics.reconciled("Subscription", "ok");
        metrics.external_call("gitea", "create", Some(201));
        metrics.watch_failed("Secret");
        metrics.admission("Subscription", Admitted::Refused);
        metrics.subscriptions(BTreeMap::from([(("gitea".to_owned(), "Ready".to_owned()), 1)]));
        metrics.subscriptions_expiring(BTreeMap::from([(("gitea".to_owned(), "RenewalFailed".to_owned()), 1)]));
        metrics.webhook_expiry(BTreeMap::from([("gitea".to_owned(), 1)]));
        let text = metrics.to_text();
        assert!(text.contains(r#"bellhop_requests_total{plugin="gitea",answer="accepted"} 1"#), "{text}");
        assert!(
            text.contains(r#"bellhop_external_calls_total{plugin="gitea",call="create",status="2xx"} 1"#),
            "{text}"
        );

        let documented: Vec<String> = include_str!("telemetry.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `"))
            .map(|line| line.split('`').next().unwrap().trim_end_matches("_total").to_owned())
            .collect();
        let mut exported: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP "))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect();
        exported.sort();
        let mut sorted = documented.clone();
        sorted.sort();
        assert_eq!(sorted, exported);
    }

    #[test]
    fn readings_are_taken_at_each_export_until_they_are_forgotten() {
        let metrics = Metrics::new();
        metrics.before_export("subscriptions", |metrics| {
            metrics.subscriptions(BTreeMap::from([(("gitea".to_owned(), "Ready".to_owned()), 3)]));
        });
        let sample = r#"bellhop_subscriptions{plugin="gitea",reason="Ready"} 3"#;
        assert!(metrics.to_text().contains(sample), "{}", metrics.to_text());
        metrics.forget_reading("subscriptions");
        metrics.subscriptions(BTreeMap::new());
        assert!(!metrics.to_text().contains(sample));
    }

    #[test]
    fn label_values_are_escaped() {
        let metrics = Metrics::new();
        metrics.external_call("a\"b\n", "find", None);
        assert!(metrics.to_text().contains(r#"plugin="a\"b\n",call="find",status="none""#), "{}", metrics.to_text());
    }
}
