//! The request of an attempt, without a socket.

use super::super::request::{Parts, Request as Sent, Unsendable, prepare};
use super::*;
use crate::api::{PublishedRunner, Runner};
use crate::plugin::Outgoing;
use crate::spool::{Delivery, DeliveryEvent, DeliveryState, EventOutcome, TriggerOutcome};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// In Unix milliseconds.
const NOW: u64 = 1_700_000_000_999;

fn with(spec: Value) -> Trigger {
    let mut trigger = trigger(1, "sub-1");
    trigger.spec.runner = serde_json::from_value(spec).unwrap();
    trigger
}

fn event(trigger: &Trigger) -> DeliveryEvent {
    let key = DeliveryKey { request: Uuid::from_u128(5), item: 0, trigger: trigger.uid };
    let outcome = TriggerOutcome {
        trigger: trigger.name.clone(),
        uid: trigger.uid,
        workflow: "review".into(),
        mismatch: None,
        captured: false,
    };
    let event = EventOutcome {
        id: Uuid::from_u128(6),
        item: 0,
        name: "push".into(),
        skipped: None,
        variables: json!({"ref": "main"}),
        notes: Vec::new(),
        triggers: vec![outcome.clone()],
    };
    let state = DeliveryState::Pending { attempts: 0, due_at: 0 };
    let delivery = Delivery { key, state, attempts: Vec::new(), added: None, replayed: None };
    DeliveryEvent { request: request(1, "push", "{}"), event, trigger: outcome, delivery }
}

fn send(trigger: &Trigger, secrets: Option<&PublishedRunner>, attempt: u32, now: u64) -> Result<Sent, Unsendable> {
    let outgoing = Outgoing::compile(&trigger.spec.runner, None).unwrap();
    let runners = Runners::new("cluster.local", &["https://runner.example".into()]).unwrap();
    let event = event(trigger);
    let parts = Parts { trigger, outgoing: &outgoing, secrets, plugin: "forge", event: &event, attempt, now };
    prepare(&parts, &runners)
}

fn secrets(trigger: &Trigger, runner: &Runner) -> PublishedRunner {
    let mut secrets = PublishedRunner::new(trigger.uid, &trigger.namespace, &trigger.name, runner);
    secrets.credentials.insert("token".into(), "hunter2".into());
    secrets.set_signing_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    secrets
}

fn secured(url: &str) -> Value {
    json!({
        "url": url,
        "headers": {"authorization": "'Bearer ' + credentials.token"},
        "credentials": {"secretRef": {"name": "runner"}},
        "signature": {"secretRef": {"name": "runner"}},
    })
}

#[test]
fn a_plain_runner_gets_a_cloud_event_in_binary_mode() {
    let sent = send(&with(json!({"url": "https://runner.example/run?key=1"})), None, 1, NOW).unwrap();
    assert_eq!((sent.method.as_str(), sent.url.as_str()), ("POST", "https://runner.example/run?key=1"));
    assert_eq!(sent.headers["ce-type"], "dev.bellhop.forge.push");
    assert_eq!(sent.headers["content-type"], "application/json");
    assert_eq!(&sent.body[..], br#"{"ref":"main"}"#);
    assert!(!sent.headers.keys().any(|name| name.as_str().starts_with("webhook-")));
    assert!(!format!("{sent:?}").contains("key=1"));
}

#[test]
fn the_structured_mode_has_everything_in_the_body() {
    let spec = json!({"url": "https://runner.example/", "format": "Structured", "headers": {"x-event": "event.id"}});
    let sent = send(&with(spec), None, 4, NOW).unwrap();
    let body: Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(body["data"], json!({"ref": "main"}));
    assert_eq!((&body["type"], &body["deliveryattempt"]), (&json!("dev.bellhop.forge.push"), &json!(4)));
    assert_eq!(body["id"].as_str().unwrap(), sent.headers["x-event"]);
    assert_eq!(sent.headers["content-type"], "application/cloudevents+json");
    assert_eq!(sent.headers.len(), 2, "{:?}", sent.headers);
}

#[test]
fn a_signature_is_that_of_standard_webhooks() {
    let trigger = with(secured("https://runner.example/"));
    let secrets = secrets(&trigger, &trigger.spec.runner);
    let sent = send(&trigger, Some(&secrets), 1, NOW).unwrap();
    assert_eq!(sent.headers["authorization"], "Bearer hunter2");
    assert_eq!(sent.headers["webhook-timestamp"], "1700000000");
    let id = sent.headers["webhook-id"].to_str().unwrap();
    let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.1700000000.{{\"ref\":\"main\"}}").as_bytes());
    let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(sent.headers["webhook-signature"], expected);

    // A repetition is the same message; another trigger on the same event is another one.
    let again = send(&trigger, Some(&secrets), 2, NOW + 60_000).unwrap();
    assert_eq!(again.headers["webhook-id"], id);
    assert_ne!(again.headers["webhook-signature"], expected);
    let mut other = trigger.clone();
    other.uid = Uuid::from_u128(77);
    let others = PublishedRunner { uid: other.uid, ..secrets };
    assert_ne!(send(&other, Some(&others), 1, NOW).unwrap().headers["webhook-id"], id);
}

#[test]
fn nothing_is_sent_without_the_secrets_of_exactly_this_runner() {
    let trigger = with(secured("https://runner.example/"));
    let waits = |secrets: Option<&PublishedRunner>| match send(&trigger, secrets, 1, NOW) {
        Err(Unsendable::NotYet) => {}
        other => panic!("{other:?}"),
    };
    waits(None);
    // The trigger has just changed: these are for the runner that it had.
    let before = with(secured("https://runner.example/before"));
    waits(Some(&secrets(&trigger, &before.spec.runner)));
    let good = secrets(&trigger, &trigger.spec.runner);
    waits(Some(&PublishedRunner { uid: Uuid::from_u128(9), ..good.clone() }));
    waits(Some(&PublishedRunner { signing_key: None, ..good.clone() }));
    waits(Some(&PublishedRunner { signing_key: Some("%".into()), ..good.clone() }));
    assert!(send(&trigger, Some(&good), 1, NOW).is_ok());
    // One whose key is missing cannot be sent either.
    let keyless = PublishedRunner { credentials: Default::default(), ..good };
    let Err(Unsendable::Never(reason)) = send(&trigger, Some(&keyless), 1, NOW) else { panic!() };
    assert!(reason.contains("the key token"), "{reason}");
}

#[test]
fn what_will_never_be_sent_says_why() {
    let Err(Unsendable::Never(reason)) = send(&with(json!({"url": "https://other.example/"})), None, 1, NOW) else {
        panic!()
    };
    assert!(reason.contains("--allow-runner-origin"), "{reason}");
    let spec = json!({"url": "https://runner.example/", "request": {"body": "variables.pusher"}});
    let Err(Unsendable::Never(reason)) = send(&with(spec), None, 1, NOW) else { panic!() };
    assert!(reason.contains("spec.runner.request.body") && reason.contains("pusher"), "{reason}");
}
