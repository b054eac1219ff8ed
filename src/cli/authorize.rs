//! `bellhop authorize`: opens the link at which a person consents, and waits for what comes of it.

use super::client::{Access, conditions, told};
use super::exit::Exit;
use super::output::{Format, clean, document, print};
use crate::api::{GROUP, reason, type_};
use crate::config::duration;
use anyhow::anyhow;
use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use serde_json::json;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

/// Options of `bellhop authorize`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The Subscription, whose method is oauth2
    subscription: String,

    /// Print the link, but do not open a browser
    #[arg(long)]
    no_open: bool,

    /// Print a document about the Subscription that is authorized, or its name, and the link on standard error
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    /// How long to wait for the consent and for the Subscription to be Ready
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    timeout: Duration,

    #[command(flatten)]
    access: Access,
}

/// What a Subscription's status says to somebody who waits for its authorization.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Somebody has to consent at this URL.
    Consent(String),
    /// Something else has to happen first: what.
    Wait(String),
    /// It is authorized and Ready: by which account, as far as the external system says it.
    Ready(Option<String>),
    /// Nothing will come of it: why.
    Refused(String),
}

/// Opens the link and waits.
///
/// # Errors
/// [`Exit::NotReady`] if the consent was refused or not given in time, [`Exit::NotFound`]; the API server refused.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let cluster = options.access.cluster().await?;
    let name = &options.subscription;
    let subscription = cluster.get("Subscription", name).await?;
    let method = subscription.data["spec"]["authorization"].as_object().and_then(|methods| methods.keys().next());
    if let Some(method) = method.filter(|method| *method != "oauth2") {
        let message = format!("the Subscription {name} is authorized by {method}: nobody has to consent to anything");
        return Err(Exit::Usage(message).into());
    }
    let (open, link_apart) = (!options.no_open, options.output.is_some());
    let mut waiting = Waiting { open, link_apart, said: String::new(), refusal: refusal(&subscription) };
    let objects = watch_object(cluster.objects("Subscription"), name).backoff(watcher::DefaultBackoff::default());
    let mut objects = pin!(objects);
    let work = async {
        while let Some(seen) = objects.next().await {
            let seen = match seen {
                Ok(seen) => seen.ok_or_else(|| cluster.missing("Subscription", name))?,
                // What the API server has refused once, it will refuse again. Everything else may pass.
                Err(watcher::Error::InitialListFailed(error @ kube::Error::Api(_))) => return Err(told(error)),
                Err(_) => continue,
            };
            if let Some(account) = waiting.look(&seen)? {
                return Ok(account);
            }
        }
        Err(anyhow!("the API server cannot be followed any more"))
    };
    let Ok(end) = tokio::time::timeout(options.timeout, work).await else {
        let said = if waiting.said.is_empty() { "nothing happened" } else { &waiting.said };
        let message = format!("the Subscription {name} is not Ready after {}s: {said}", options.timeout.as_secs());
        return Err(Exit::NotReady(message).into());
    };
    let account = end?;
    eprintln!("The Subscription {name} is authorized{} and Ready.", by(account.as_deref()));
    if let Some(format) = options.output {
        let whole = json!({"name": name, "account": account, "ready": true});
        print(&document(format, &whole, &[format!("subscription.{GROUP}/{name}")])?)?;
    }
    Ok(())
}

/// By which account, as part of a sentence.
fn by(account: Option<&str>) -> String {
    account.map(|account| format!(" as {}", clean(account))).unwrap_or_default()
}

/// What was said already, so that it is said once.
struct Waiting {
    open: bool,
    /// Standard output is for a document.
    link_apart: bool,
    said: String,
    /// The refusal of an earlier consent: it is not the answer to this one.
    refusal: Option<String>,
}

impl Waiting {
    /// Says what is new; gives the account, if it is known, when everything is done.
    fn look(&mut self, subscription: &DynamicObject) -> anyhow::Result<Option<Option<String>>> {
        match step(subscription, self.refusal.as_deref()) {
            Step::Ready(account) => return Ok(Some(account)),
            Step::Refused(why) => return Err(Exit::NotReady(clean(&why)).into()),
            Step::Consent(url) if !self.said.contains(&url) => {
                self.said = format!("nobody has consented at {url}");
                match self.link_apart {
                    true => eprintln!("{}", clean(&url)),
                    false => print(&format!("{}\n", clean(&url)))?,
                }
                self.open(&url);
            }
            Step::Consent(_) => {}
            Step::Wait(what) if self.said != what => {
                eprintln!("Waiting: {}", clean(&what));
                self.said = what;
            }
            Step::Wait(_) => {}
        }
        // Later statuses no longer belong to an earlier consent.
        if refusal(subscription).is_none() {
            self.refusal = None;
        }
        Ok(None)
    }

    fn open(&self, url: &str) {
        // The status is Bellhop's, but what is handed to the system's opener must be a web page all the same.
        let is_page = url.starts_with("https://") || url.starts_with("http://");
        let opened = self.open && is_page && std::io::stdout().is_terminal() && open::that_detached(url).is_ok();
        if opened {
            eprintln!("Consent in the browser that opens, or follow the link; waiting …");
        } else {
            eprintln!("Follow the link in a browser and consent; waiting …");
        }
    }
}

/// What came of the last consent, if it was nothing good.
fn refusal(subscription: &DynamicObject) -> Option<String> {
    let open = [reason::AUTHORIZATION_REQUIRED, reason::AUTHORIZATION_EXPIRED];
    let authorized = conditions(subscription).into_iter().find(|one| one.type_ == type_::AUTHORIZED)?;
    // Without a link, there was no consent yet.
    subscription.data["status"]["authorization"]["url"].as_str()?;
    (authorized.status == "False" && !open.contains(&authorized.reason.as_str())).then_some(authorized.message)
}

/// Reads the status. A refusal counts unless it was there before: whoever asks again wants to consent now. (If the next
/// consent is refused in the same words at once, nothing shows that, and the time runs out.)
fn step(subscription: &DynamicObject, earlier_refusal: Option<&str>) -> Step {
    if subscription.metadata.deletion_timestamp.is_some() {
        return Step::Refused("the Subscription is being deleted".to_owned());
    }
    let conditions = conditions(subscription);
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let is_true = |type_: &str| condition(type_).is_some_and(|condition| condition.status == "True");
    let why = |type_: &str| condition(type_).map(|one| format!("{}: {}", one.reason, one.message));
    let status = &subscription.data["status"]["authorization"];
    if is_true(type_::AUTHORIZED) && !is_true(type_::STALLED) {
        let account = status["account"].as_str();
        let by = by(account);
        return match why(type_::READY) {
            _ if is_true(type_::READY) => Step::Ready(account.map(str::to_owned)),
            Some(why) => Step::Wait(format!("authorized{by}, not Ready yet: {why}")),
            None => Step::Wait(format!("authorized{by}, not Ready yet")),
        };
    }
    if let Some(refusal) = refusal(subscription)
        && earlier_refusal != Some(refusal.as_str())
    {
        return Step::Refused(refusal);
    }
    match status["url"].as_str() {
        // What is stalled by a missing consent is not any more once it is given.
        Some(url) => Step::Consent(url.to_owned()),
        None if is_true(type_::STALLED) => {
            Step::Refused([type_::READY, type_::STALLED].into_iter().find_map(why).unwrap_or_default())
        }
        None => Step::Wait(why(type_::READY).unwrap_or_else(|| "Bellhop has not looked at it yet".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const LINK: &str = "https://hooks.example.com/oauth/start/abc";

    fn subscription(authorization: &Value, conditions: &[(&str, &str, &str, &str)]) -> DynamicObject {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, reason, message)| {
                json!({"type": type_, "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        let status = json!({"authorization": authorization, "conditions": conditions});
        serde_json::from_value(json!({"metadata": {"name": "acme-web"}, "status": status})).unwrap()
    }

    #[test]
    fn the_status_is_read_from_the_first_link_to_ready() {
        let none = subscription(&json!({}), &[]);
        assert_eq!(step(&none, None), Step::Wait("Bellhop has not looked at it yet".to_owned()));
        let required = ("Authorized", "False", "AuthorizationRequired", "follow the link");
        let asked = subscription(&json!({"url": LINK}), &[required, ("Ready", "False", "AuthorizationRequired", "")]);
        assert_eq!(step(&asked, None), Step::Consent(LINK.to_owned()));
        let authorized = ("Authorized", "True", "Authorized", "");
        let progressing = ("Ready", "False", "RouteNotLive", "replicas have to follow");
        let half = subscription(&json!({"account": "acme-bot"}), &[authorized, progressing]);
        let expected = "authorized as acme-bot, not Ready yet: RouteNotLive: replicas have to follow";
        assert_eq!(step(&half, None), Step::Wait(expected.to_owned()));
        let done = subscription(&json!({"account": "acme-bot"}), &[authorized, ("Ready", "True", "Ready", "")]);
        assert_eq!(step(&done, None), Step::Ready(Some("acme-bot".to_owned())));
    }

    #[test]
    fn a_refusal_ends_it_unless_it_is_an_earlier_one() {
        let refused =
            subscription(&json!({"url": LINK}), &[("Authorized", "False", "ConsentRefused", "access_denied")]);
        assert_eq!(step(&refused, None), Step::Refused("access_denied".to_owned()));
        assert_eq!(step(&refused, Some("access_denied")), Step::Consent(LINK.to_owned()));
        // Once another consent has begun, the same words are its answer.
        let mut waiting =
            Waiting { open: false, link_apart: false, said: String::new(), refusal: Some("access_denied".to_owned()) };
        assert_eq!(waiting.look(&refused).unwrap(), None);
        let required = ("Authorized", "False", "AuthorizationRequired", "");
        assert_eq!(waiting.look(&subscription(&json!({"url": LINK}), &[required])).unwrap(), None);
        let error = waiting.look(&refused).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Exit::NotReady("access_denied".to_owned())));
    }

    #[test]
    fn a_mistake_and_a_deletion_end_it() {
        let stalled = [("Stalled", "True", "ClientNotFound", ""), ("Ready", "False", "ClientNotFound", "add one")];
        let stalled = subscription(&json!({}), &stalled);
        assert_eq!(step(&stalled, None), Step::Refused("ClientNotFound: add one".to_owned()));
        let mut going = subscription(&json!({"url": LINK}), &[]);
        going.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(step(&going, None), Step::Refused("the Subscription is being deleted".to_owned()));
    }
}
